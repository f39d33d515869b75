"""A folder with a user's files, and the command line called inside this process, where it is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.first, self.last = nn.Linear(10, width), nn.Linear(width, 4)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


class Wide(Net):
    def __init__(self, width, depth):
        super().__init__(width)


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(50, 8), nn.Linear(8, 4)

    def forward(self, ids, scale=1.0):
        return self.last(torch.relu(self.table(ids).mean(1)) * scale)


class Crash(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(10, 10), Narrow())

    def forward(self, x):
        return self.inner(x)


class Narrow(nn.Module):
    def forward(self, x):
        return x @ torch.ones(3, 3)


def sick():
    torch.manual_seed(0)
    layers = [part for _ in range(20) for part in (nn.Linear(10, 10), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(10, 4))


def made():
    torch.manual_seed(0)
    return Net()


def batch():
    torch.manual_seed(1)
    return torch.randn(32, 10), torch.randint(4, (32,))


def loader():
    x, y = torch.randn(32, 10), torch.randint(4, (32,))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)


def both():
    return made(), batch()


def whole():
    return made(), batch(), nn.CrossEntropyLoss()


def case():
    from unvanish.core.diagnosis import Case

    return Case(made(), batch(), nn.CrossEntropyLoss())


def talking():
    print("talking to stdout")
    return made()


def three():
    return 3


def raising():
    raise ValueError("bad width")


def leaving():
    raise SystemExit(3)


def empty():
    return iter(())


def my_loss(output, y):
    return nn.functional.cross_entropy(output, y)


def vector_loss(output, y):
    return nn.functional.cross_entropy(output, y, reduction="none")


class MyLoss(nn.Module):
    def forward(self, output, y):
        return my_loss(output, y)


instance = made()
"""


@dataclass(frozen=True)
class Answer:
    """What a call gave: exit code, stdout, stderr, and the last line of stderr, which is the message."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        return self.err.rstrip("\n").rpartition("\n")[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, the working folder of the test: net.py and an empty pyproject.toml."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """Call `unvanish ARGS` in the user's folder; modules and paths it brought in are forgotten afterwards."""
    from unvanish.cli import main

    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(os.environ, "NO_COLOR", "1")

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["unvanish", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
        code = ended.value.code
        return Answer(int(code or 0), printed.out, printed.err)

    return run
