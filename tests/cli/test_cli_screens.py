"""What the commands print fits a screen; `-v` lists everything; `--svg` writes a picture."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    layers = []
    for _ in range(110):
        layers += [nn.Linear(16, 16), nn.Sigmoid()]
    batch = torch.randn(16, 16), torch.randint(0, 3, (16,))
    return nn.Sequential(*layers, nn.Linear(16, 3)), batch, nn.CrossEntropyLoss()
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    """A network of hundreds of rows."""
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:build"


def test_check_prints_a_screen_and_all_of_it_on_demand(call: Any, net: str, tmp_path: Path) -> None:
    picture = tmp_path / "check.svg"
    answer = call("check", net, "--no-confirm", "--svg", str(picture))
    lines = answer.out.splitlines()
    assert answer.code == 1 and len(lines) <= 24
    assert "gradient ledger" in answer.out and "remedy" in answer.out and "(-v" in answer.out
    assert "passed (" not in answer.out
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    whole = call("check", net, "--no-confirm", "-v").out
    assert "passed (" in whole and "not applicable (" in whole and len(whole.splitlines()) > 24


def test_forecast_prints_a_screen(call: Any, net: str, tmp_path: Path) -> None:
    picture = tmp_path / "forecast.svg"
    answer = call("forecast", net, "--svg", str(picture))
    assert len(answer.out.splitlines()) <= 24 and picture.exists()
    assert "skipped (" in call("forecast", net, "--verbose").out


def test_a_picture_must_end_in_svg(call: Any, net: str) -> None:
    for verb in ("check", "forecast", "cure"):
        answer = call(verb, net, "--svg", "picture.png")
        assert answer.code == 2 and "must end in .svg" in answer.err


def test_a_narrow_terminal_that_knows_only_ascii_gets_its_report(net: str) -> None:
    command = [sys.executable, "-m", "unvanish", "check", net, "--no-confirm"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "NO_COLOR": "1", "COLUMNS": "60"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    text = done.stdout.decode("ascii")
    assert done.returncode == 1, done.stderr
    assert "error[" in text and "\\u" not in text and "\x1b" not in text
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 60
