"""Each stack's example runs offline where its library is, and prints what its page promises."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

STACKS = Path(__file__).parents[2] / "examples" / "stacks"
PROMISES = {  # by the name of the script: what it needs, what it prints
    "watch_lightning": ("lightning", ["ACT002 contracting-activation", "3 steps"]),
    "watch_fabric": ("lightning", ["verdict: 1 error: OPT00"]),
    "watch_transformers": ("transformers", ["verdict: ", "ended after 7 steps"]),
    "watch_trl": ("trl", ["nothing wrong was seen in 20 steps"]),
    "watch_peft": ("peft", ["check: ['note GRF003']", "nothing wrong was seen in 20 steps"]),
    "watch_keras": ("keras", ["of it a layer, unsaturated", "ACT002 contracting-activation", "3 steps"]),
    "watch_skorch": ("skorch", ["verdict: 1 error: OPT00"]),
    "watch_ignite": ("ignite", ["1 error: NUM001", "weights are finite: True"]),
    "watch_fastai": ("fastai", ["verdict: 1 error: OPT00"]),
    "watch_composer": ("composer", ["ACT002 contracting-activation", "3 steps"]),
    "watch_deepspeed": ("deepspeed", ["ACT002 contracting-activation", "20 steps"]),
    "watch_ultralytics": ("ultralytics", ["healthy:", "nothing wrong was seen in 4 steps"]),
    "watch_pyg": ("torch_geometric", ["ACT002 contracting-activation", "4 steps"]),
    "watch_sentence_transformers": ("sentence_transformers", ["ACT002 contracting-activation", "3 steps"]),
    "watch_diffusers": ("diffusers", ["nothing wrong was seen in 30 steps", "OPT008 beyond-critical-step"]),
    "watch_accelerate": ("accelerate", ["1 error: NUM001", "weights are finite: True"]),
}


@pytest.mark.slow  # each loads its whole library in a process of its own
@pytest.mark.parametrize("name", PROMISES)
def test_an_example_prints_what_it_promises(name: str, tmp_path: Path) -> None:
    library, promised = PROMISES[name]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}")
    offline = {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "http_proxy": "http://127.0.0.1:9", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, STACKS / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [words for words in promised if words not in done.stdout] == []


def test_every_stack_has_a_short_script_and_a_row() -> None:
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in STACKS.glob("*.py")}
    assert set(scripts) == set(PROMISES)
    assert max(text.count("\n") for text in scripts.values()) < 60
    page = (STACKS.parent / "README.md").read_text(encoding="utf-8")
    assert [name for name in scripts if f"(stacks/{name}.py)" not in page] == []
