"""Checkpoints: whole or not at all, data and never code, and errors that say what does not fit."""

from __future__ import annotations

import json
import math
import pickle

import pytest
import torch
from torch import nn

from unvanish.train.checkpoint import file as checkpoint
from unvanish.train.errors import TrainError


def test_tensors_and_description_come_back(tmp_path):
    tied = torch.randn(3, 3)
    given = {"a": torch.arange(6).reshape(2, 3), "b": tied, "c": tied, "d": torch.tensor(1.5)}
    path = checkpoint.save(
        tmp_path / "w" / "x.safetensors", given, {"epoch": 3, "metrics": {"a": 0.5}}, readable=True
    )
    found = checkpoint.load(path)
    assert (
        found.about
        == {"epoch": 3, "metrics": {"a": 0.5}}
        == json.loads(path.with_suffix(".json").read_text())
    )
    for name, tensor in given.items():
        assert torch.equal(found.tensors[name], tensor)
    assert not list(path.parent.glob("*.partial"))


def test_a_state_is_a_tree_of_values_and_tensors(tmp_path):
    state = {
        "a": [1, math.nan, None, torch.tensor([1, 2])],
        "b": {"0": {"step": torch.tensor(3.0)}},
        "c": 1 / 3,
    }
    found = checkpoint.load_state(checkpoint.save_state(tmp_path / "s.safetensors", state))
    assert found["a"][0] == 1 and math.isnan(found["a"][1]) and found["c"] == 1 / 3
    assert torch.equal(found["a"][3], torch.tensor([1, 2])) and found["b"]["0"]["step"] == 3


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path / "x.safetensors", {"a": torch.ones(2)}, {})

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("unvanish.store.files.os.fsync", full)
    with pytest.raises(TrainError, match=r"cannot write the checkpoint .*: no space left"):
        checkpoint.save(path, {"a": torch.zeros(2)}, {})
    assert torch.equal(checkpoint.load(path).tensors["a"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}]
)
def test_foreign_files_are_read_with_weights_only(tmp_path, wrap):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(wrap({f"module.{k}": v for k, v in source.state_dict().items()}), tmp_path / "x.pt")
    assert checkpoint.fill(target, checkpoint.load(tmp_path / "x.pt").tensors, "x.pt") == []
    assert torch.equal(source.weight, target.weight)


class Evil:
    """What a pickle could do."""

    def __reduce__(self):
        return print, ("code ran",)


def test_code_in_a_file_does_not_run(tmp_path, capsys):
    torch.save({"w": torch.ones(1), "x": Evil()}, tmp_path / "x.pt")
    assert list(checkpoint.load(tmp_path / "x.pt").tensors) == ["w"]
    torch.save({"x": Evil()}, tmp_path / "x.pt")
    with pytest.raises(TrainError, match="but no network and no state_dict"):
        checkpoint.load(tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(TrainError):
        checkpoint.load(tmp_path / "y.pt")
    assert "code ran" not in capsys.readouterr().out


def test_what_does_not_fit_is_named():
    wide, narrow = nn.Linear(3, 4), nn.Linear(3, 2)
    with pytest.raises(TrainError) as caught:
        checkpoint.fill(narrow, wide.state_dict(), "w.pt")
    assert (
        "w.pt does not fit this model; shapes differ: weight is (4, 3) in the file and (2, 3) in the model"
        in str(caught.value)
    )
    with pytest.raises(TrainError, match="missing: weight, bias; not in the model: wieght"):
        checkpoint.fill(narrow, {"wieght": torch.ones(1)}, "w.pt")


def test_a_new_head_stays_as_it_is():
    source, target = (
        nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 9)),
        nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)),
    )
    assert checkpoint.fill(target, source.state_dict(), "w", strict=False) == ["1.weight", "1.bias"]
    assert torch.equal(source[0].weight, target[0].weight)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bset.safetensors", None, "there is no checkpoint"),
        ("best.safetensors", b"nonsense", "is not a safetensors file, or it is damaged"),
        ("best.pt", b"nonsense", "best.pt"),
    ],
)
def test_damaged_and_missing_files(tmp_path, name, content, message):
    (tmp_path / "best.safetensors").write_bytes(b"")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainError) as caught:
        checkpoint.load(tmp_path / name)
    assert message in str(caught.value)
    if content is None:
        assert "did you mean 'best.safetensors'?" in str(caught.value)


def test_weights_alone_hold_no_state(tmp_path):
    path = checkpoint.save(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {})
    with pytest.raises(TrainError, match="holds no state of a run"):
        checkpoint.load_state(path)
