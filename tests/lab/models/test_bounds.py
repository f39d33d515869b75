"""A YAML imports nothing without leave, and what is too large is refused before it has memory."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from unvanish.lab.models import SpecError, build, read
from unvanish.lab.models import bounds as limits
from unvanish.lab.models.blocks.recurrent import Recurrent

HEAD = {"module": "ClassifyHead"}


def net(*rows, allow_code=False, **facts):
    given = {"classes": 3, "size": 8, **facts}
    return build({"layers": [*rows, HEAD]}, allow_code=allow_code, **given)


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A package in the current folder that leaves a mark if it is imported, wholly or in part."""
    mark, folder = tmp_path / "RAN", tmp_path / "canary"
    folder.mkdir()
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    text += "from torch import nn\nclass Net(nn.Identity): pass\n"
    for name in ("__init__.py", "part.py"):
        (folder / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield mark
    for name in [n for n in sys.modules if n.partition(".")[0] == "canary"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["canary.Net", "canary.part.Net", "canary.part.inner.Net"])
def test_a_layer_of_somebody_elses_is_not_imported_without_leave(canary, name):
    with pytest.raises(SpecError) as error:
        net({"module": name})
    assert f"would import the Python module {name.rpartition('.')[0]!r}" in str(error.value)
    assert "allow_code=True" in str(error.value) and "--allow-code" in str(error.value)
    assert not canary.exists()


def test_with_leave_it_is_imported(canary):
    assert type(net({"module": "canary.part.Net", "name": "a"}, allow_code=True).a).__name__ == "Net"
    assert canary.exists()
    spec = read({"layers": [{"module": "canary.Net"}, HEAD]}, allow_code=True)
    assert build(spec, classes=2, size=8) is not None


def test_a_key_of_the_file_is_no_leave(canary):
    for where in ({"allow_code": True}, {"train": {"allow_code": True}}):
        with pytest.raises(SpecError):
            build({"layers": [{"module": "canary.Net"}, HEAD], **where}, classes=2, size=8)
    assert not canary.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "nn.functional.relu", "nn.init", "nn.Parameter", "nn.__name__", "..x", "a b.C", ""]
)
def test_only_modules_of_torch_nn_are_named_without_a_path(name):
    with pytest.raises(SpecError):
        net({"module": name})


@pytest.mark.parametrize(
    ("rows", "facts", "told"),
    [
        ([{"module": "Conv", "out": 9_000_000}, {"module": "Conv", "out": 9_000_000}], {}, "GiB"),
        ([{"module": "nn.Flatten"}, {"module": "nn.Linear", "out": 9_000_000}] * 2, {}, "GiB"),
        ([{"module": "Conv", "out": 10**12}], {}, "the number 1e+12 is too large"),
        ([{"module": "Conv", "out": 8, "repeats": 10**9}], {}, "repeated 1,000,000,000 times"),
        ([{"module": "nn.Upsample", "args": [None, 500_000]}], {}, "GiB"),
        ([{"module": "nn.ZeroPad2d", "args": [9_000_000]}], {}, "GiB"),
        ([{"module": "Conv", "out": 8}], {"size": 2_000_000}, "GiB"),
        ([{"module": "Conv", "out": 8}], {"size": 10**12}, "size is 1,000,000,000,000"),
        ([{"module": "Conv", "out": 8}], {"size": "big"}, "size must be a whole number"),
        ([{"module": "Conv", "out": 8}], {"size": (8, 0)}, "size must be a whole number"),
        ([{"module": "Conv", "out": 8}], {"channels": None, "classes": -1}, "classes must be"),
        ([{"module": "Conv", "out": 8, "repeats": 9_999}] * 3, {}, "at most 20,000 are built"),
        ([{"module": "nn.Transformer", "args": [1, 1_000_000, 1_000_000]}], {}, "make it smaller"),
    ],
)
def test_what_is_too_large_is_refused_before_it_has_memory(rows, facts, told, monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 1)
    begun = time.perf_counter()
    with pytest.raises(SpecError) as error:
        net(*rows, **facts)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert time.perf_counter() - begun < 10


def test_a_recurrent_layer_of_a_million_layers_ends_soon(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 1)
    rows = [{"module": "Recurrent", "width": 8, "layers": 1_000_000}]
    with pytest.raises(SpecError, match=r"calls of torch|more than 1 s"):
        build({"task": "sequence", "layers": rows}, length=4, features=2)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "relu-rnn"])
@pytest.mark.parametrize("both", [False, True])
def test_a_recurrence_is_drafted_by_its_shapes(cell, both):
    rows = [{"module": "Recurrent", "width": 6, "layers": 2, "cell": cell, "bidirectional": both}]
    build({"task": "sequence", "layers": rows}, length=7, features=3)  # reads the shapes that a draft has
    cells = Recurrent(3, 6, cell, 2, both).core
    found, last = cells(torch.randn(2, 7, 3))
    with torch.device("meta"), limits.Measure(limits.Size()):
        drafted, state = cells.to("meta")(torch.empty(2, 7, 3))
    assert drafted.is_meta
    assert drafted.shape == found.shape
    if cell == "lstm":
        assert [s.shape for s in state] == [s.shape for s in last]
    else:
        assert state.shape == last.shape


def test_a_recurrence_over_many_steps_is_drafted_at_once():
    begun = time.thread_time()
    rows = [{"module": "Recurrent", "width": 8, "cell": "gru"}]
    build({"task": "sequence", "layers": rows}, length=100_000, features=2)
    assert time.thread_time() - begun < limits.SECONDS


def test_more_weights_than_the_caller_has_are_refused():
    with pytest.raises(SpecError, match=r"more than 100"):
        build({"layers": [{"module": "Conv", "out": 8}, HEAD]}, classes=2, size=8, most=100)


def test_memory_is_that_of_the_process(monkeypatch):
    assert 2**28 < limits.measure_memory() < 2**60
    monkeypatch.setattr(limits, "measure_memory", lambda: 2**20)
    with pytest.raises(SpecError, match="need about"):
        net({"module": "Conv", "out": 512}, {"module": "Conv", "out": 512})
    assert build({"layers": [{"module": "Conv", "out": 512}, HEAD]}, "meta", classes=2) is not None
