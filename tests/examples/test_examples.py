"""Every example runs offline, within its time and size, and prints what its page promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMISES = {
    "own_loop": ["healthy:", "OPT001 step-too-large"],
    "check_in_pytest": ["2 passed"],
    "cure_a_sick_net": ["proven on a copy", "accuracy on unseen digits after:"],
    "watch_and_compare": ["sigmoid", "relu", "decades, loss to input"],
    "forecast_before_data": ["He              healthy", "INI001"],
    "train_from_yaml": ["forecast: the gradient reaches every layer", "best weights: best.safetensors"],
}


@pytest.mark.parametrize("name", PROMISES)
def test_an_example_prints_what_it_promises(name: str, tmp_path: Path) -> None:
    offline = {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "http_proxy": "http://127.0.0.1:9", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    assert [words for words in PROMISES[name] if words not in printed] == []


def test_the_examples_are_few_and_short() -> None:
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")}
    assert set(scripts) == set(PROMISES)
    assert max(text.count("\n") for text in scripts.values()) < 60
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [name for name in scripts if f"({name}.py)" not in page] == []
