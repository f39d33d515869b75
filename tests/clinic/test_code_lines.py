"""A finding leads to the line that makes its module, that runs its operation, or that was checked."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

import unvanish
from unvanish.clinic.code_lines import locate, locate_object
from unvanish.core.diagnosis import Diagnosis, Evidence, Finding
from unvanish.core.trace import Site, Trace

NET = """
import math

import torch
from torch import nn


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.inherited = nn.Linear(4, 4)


class Block(Base):
    def __init__(self):
        super().__init__()
        self.first, self.act = nn.Linear(4, 4), nn.Sigmoid()
        self.bias: nn.Parameter = nn.Parameter(torch.zeros(4))
        self.add_module("named", nn.ReLU())

    def forward(self, x):
        return self.act(self.first(x))

    def operate(self, x):
        scaled = math.log(2.0) * self.first(x)
        logs = torch.log(scaled.relu_()) @ x.T
        later = logs.sum().tanh()
        return later + logs.mean().tanh()


def make(width=4):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(Block(), nn.Sequential(nn.Linear(4, 4)))
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.blocks(x))

    return Inner()


def plain():
    return nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())


def my_loss(output, y):
    return ((output - y) ** 2).mean()
"""


def number(text: str) -> int:
    """The line of NET that holds a text."""
    return next(i for i, line in enumerate(NET.split("\n"), 1) if text in line)


@pytest.fixture
def net(tmp_path, monkeypatch):
    """The module of the file, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text(NET)
    spec = importlib.util.spec_from_file_location("my_net", tmp_path / "my_net.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_net", module)
    spec.loader.exec_module(module)
    return module


def place(model, path, cause="cause", loss=None, origin=None, sites=()):
    """The line of a finding at a path."""
    trace = Trace(tuple(sites), torch.zeros(0, len(sites), 0).numpy(), statistics=())
    found = Diagnosis((Finding("X", "x", "error", cause, (path,)),), trace)
    return locate(found, model, loss, origin).findings[0].line


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("blocks", "self.blocks ="),
        ("blocks.0.act[3]", "self.act ="),
        ("blocks.0.first.weight", "self.first,"),
        ("blocks.0.bias", "self.bias:"),
        ("blocks.0.named", "add_module"),
        ("blocks.0.inherited", "self.inherited"),
        ("blocks.0", "class Block(Base)"),
        ("blocks.1.0", "self.blocks ="),  # a layer of torch's in containers of torch's
        ("blocks.0.log", "logs = torch.log"),  # an operation of the forward
        ("blocks.0.relu[2]", "logs = torch.log"),
        ("blocks.0.matmul", "logs = torch.log"),
        ("blocks.0.mul", "scaled = "),
        ("blocks.0.tanh", "class Block(Base)"),  # two lines may have made it
        ("head", "self.head ="),
        ("(model)", "class Inner"),
        ("no.such.place", "class Inner"),
    ],
)
def test_a_module_leads_to_the_line_that_makes_it(net, path, text):
    assert place(net.make(), path) == f"my_net.py:{number(text)}"


def test_without_a_class_of_the_users_what_made_the_model_is_named(net):
    assert place(net.plain(), "0") == ""
    assert place(net.plain(), "0", origin=net.plain) == f"my_net.py:{number('def plain')}"
    Path("net.yaml").write_text("")
    assert place(net.plain(), "0", origin=Path("net.yaml")) == "net.yaml:1"
    assert place(net.plain(), "0", origin=Path("zoo.yaml")) == ""


def test_a_wrapper_is_seen_through(net):
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.add_module("_wrapped", inner)

    assert place(Wrapper(net.make()), "head") == f"my_net.py:{number('self.head =')}"


def test_the_line_that_the_finding_names_comes_first(net):
    assert place(net.make(), "head", "it breaks in my_net.py:7, twice") == "my_net.py:7"
    assert place(net.make(), "head", "it breaks (other.py:7)") == f"my_net.py:{number('self.head =')}"
    evidence = (Evidence("its line", "my_net.py:9"),)
    found = Diagnosis(
        (Finding("X", "x", "error", "c", ("head",), evidence),),
        Trace((), torch.zeros(0, 0, 0).numpy(), statistics=()),
    )
    assert locate(found, net.make()).findings[0].line == "my_net.py:9"


def test_the_line_of_the_operation_comes_before_the_module(net):
    sites = (Site.node("head", "log", 0, {"line": "my_net.py:5"}),)
    assert place(net.make(), "head", sites=sites) == "my_net.py:5"


def test_a_file_outside_the_working_folder_has_its_whole_path(net, tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    file = (tmp_path / "my_net.py").as_posix()
    assert place(net.make(), "head") == f"{file}:{number('self.head =')}"
    assert place(net.make(), "head", "it breaks in my_net.py:7") == f"{file}:7"  # by its name alone


def test_the_loss_leads_to_the_users_function(net):
    line = f"my_net.py:{number('def my_loss')}"
    assert place(net.plain(), "loss", loss=net.my_loss) == line
    assert locate_object(functools.partial(net.my_loss, y=1)) == line
    assert place(net.plain(), "loss", loss=nn.MSELoss(), origin=net.plain).endswith(f":{number('def plain')}")


@pytest.mark.parametrize("value", [nn.Linear, nn.functional.relu, len, 3, None, functools.reduce, object()])
def test_what_is_not_the_users_has_no_line(value):
    assert locate_object(value) == ""


def test_objects_that_answer_everything_or_nothing_do_no_harm(net):
    class Answering:
        def __getattr__(self, name):
            return Answering()

        def __call__(self, *given):
            return Answering()

    class Raising(nn.Module):
        __module__ = "no.such.module"

        def children(self):
            raise RuntimeError("not now")

    here = Path(__file__).as_posix()
    assert place(net.plain(), "loss", loss=Answering()) == f"{here}:{source_line('class Answering')}"
    assert place(Raising(), "a.b.c", loss=MagicMock(), origin=MagicMock()) == ""
    assert place(Raising(), "loss", loss=MagicMock()) == ""


def source_line(text):
    """The first line of this file that holds a text."""
    return next(i for i, line in enumerate(Path(__file__).read_text().split("\n"), 1) if text in line)


def test_a_file_that_changed_is_read_again(net, tmp_path):
    before = place(net.make(), "head")
    (tmp_path / "my_net.py").write_text("\n\n" + NET)
    assert place(net.make(), "head") == f"my_net.py:{int(before.rpartition(':')[2]) + 2}"
    (tmp_path / "my_net.py").write_text("def broken(:")
    assert place(net.make(), "head") == ""
    (tmp_path / "my_net.py").unlink()
    assert place(net.make(), "head") == ""


def test_a_real_finding_and_what_it_explains_have_lines(net):
    torch.manual_seed(0)
    model = nn.Sequential(*[net.Block() for _ in range(20)])
    found = unvanish.check(model, torch.randn(8, 4), confirm=False)
    assert all(f.line == "" for f in found.walk())
    located = locate(found, model)
    first = located.findings[0]
    assert first.code == "ACT002" and first.line == f"my_net.py:{number('self.act =')}"
    assert all(f.line.startswith("my_net.py:") for f in located.walk())
    assert f"({first.line})" in str(located)
    with pytest.raises(AssertionError, match=first.line):
        unvanish.assert_healthy(model, torch.randn(8, 4), confirm=False)
