"""The command line imports nothing that a file names, and nothing that happens to lie beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LIBRARIES = (
    "torch",
    "numpy",
    "yaml",
    "rich",
    "typer",
    "accelerate",
    "PIL",
    "safetensors",
    "onnx",
    "cv2",
    "helper",
)
SPEC = {"task": "classify", "layers": [{"module": "helper.Net"}, {"module": "ClassifyHead", "classes": 2}]}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of data with files that are called like libraries, each of which leaves a mark."""
    mark = tmp_path / "RAN"
    for name in LIBRARIES:
        text = f"import pathlib\npathlib.Path({str(mark)!r}).write_text(__name__)\n"
        (tmp_path / f"{name}.py").write_text(text + "from torch import nn\nclass Net(nn.Identity): pass\n")
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(SPEC))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words):
    known = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    return subprocess.run(
        [sys.executable, "-m", "unvanish", *words], capture_output=True, text=True, env=known, timeout=100
    )


def test_a_module_beside_the_yaml_is_imported_only_with_leave(here):
    done = call("check", "x.yaml", "--no-confirm")
    assert done.returncode == 2 and not (here / "RAN").exists()
    (line,) = done.stderr.strip().splitlines()
    assert "would import the Python module 'helper'" in line and "--allow-code" in line
    done = call("check", "x.yaml", "--no-confirm", "--allow-code")
    assert done.returncode in (0, 1), done.stderr
    assert (here / "RAN").read_text() == "helper"
