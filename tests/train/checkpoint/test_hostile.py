"""Weights and .pt files from somebody else: each fault is one line, nothing is imported or allocated."""

from __future__ import annotations

import json
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from unvanish.clinic.tensor_file import TensorFileError, read_tensors
from unvanish.train import Model
from unvanish.train.errors import TrainError

SPEC = {"task": "classify", "layers": [{"module": "Conv", "out": 4}, {"module": "ClassifyHead"}]}
FACTS = {"classes": 3, "channels": 3, "size": 8}
IMAGE = {"input": "image", **FACTS, "mean": [0.5] * 3, "std": [0.2] * 3}
GOOD = {
    "spec": SPEC,
    "facts": FACTS,
    "task": "classify",
    "name": "x",
    "names": ["a", "b", "c"],
    "preparation": IMAGE,
}


@pytest.fixture
def weights(tmp_path):
    """Write weights with this description, a dict or a text."""
    tensors = Model(dict(SPEC)).build(**FACTS).state_dict()

    def write(about):
        text = about if isinstance(about, str) else json.dumps(about)
        save_file(tensors, tmp_path / "w.safetensors", {"unvanish": text})
        return tmp_path / "w.safetensors"

    return write


def test_good_weights_are_read(weights):
    assert Model(weights(GOOD)).predict(torch.zeros(8, 8, 3, dtype=torch.uint8))[0].probs.shape == (3,)


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ("[1]", "must be a table"),
        ("null", "must be a table"),
        ("[" * 100_000, "within each other"),
        ('{"spec": ' + '{"a": ' * 200 + "1" + "}" * 201, "within each other"),
        ("{", "not JSON"),
        ('{"spec": {"task": 1' + "0" * 5000 + "}}", "not JSON"),
        ({"spec": 5}, "its spec must be"),
        ({**GOOD, "facts": None}, "its facts must be"),
        ({**GOOD, "facts": {"classes": "many"}}, "its facts must be"),
        ({**GOOD, "facts": {**FACTS, "size": 10**12}}, "its facts must be"),
        ({**GOOD, "facts": {**FACTS, "colour": 1}}, "its facts must be"),
        ({**GOOD, "task": "rule"}, "its task must be"),
        ({**GOOD, "names": [1]}, "its names must be"),
        ({**GOOD, "preparation": 7}, "its preparation must be"),
        ({**GOOD, "preparation": {"input": "smell"}}, "its preparation is for"),
        ({**GOOD, "preparation": {**IMAGE, "std": [0.2, 0.2, 0]}}, "must give std"),
        ({**GOOD, "preparation": {**IMAGE, "size": 10**9}}, "must give size"),
        ({**GOOD, "preparation": {**IMAGE, "channels": 1}}, "channels"),
        (
            {**GOOD, "preparation": {"input": "text", "vocabulary": {"sort": "words", "entries": 3}}},
            "damaged",
        ),
        ({**GOOD, "spec": {**SPEC, "layers": 3}}, "layers must be a list"),
        ({**GOOD, "spec": {**SPEC, "layers": [{"module": "this.Net"}]}}, "would import the Python module"),
        ({**GOOD, "spec": {**SPEC, "layers": [{"module": "Conv", "out": 9_000_000}] * 2}}, "weights by here"),
        ({**GOOD, "spec": {**SPEC, "train": {"project": "/etc"}}}, "for whoever trains"),
        ({"state": {"model": {"tensor": "nowhere"}}}, "holds weights only"),
    ],
)
def test_a_damaged_description_is_refused_in_one_line(weights, about, told):
    with pytest.raises(TrainError) as error:
        Model(weights(about))
    assert told in str(error.value) and "\n" not in str(error.value) and "w.safetensors" in str(error.value)


def test_a_header_longer_than_its_file_is_refused(weights):
    path = weights(GOOD)
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])
    with pytest.raises(TrainError, match="its header says"):
        Model(path)


def nest(count):
    value = [1]
    for _ in range(count):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (torch.ones(1).expand(10**9), "more numbers than memory"),
        ({"a": [torch.ones(1).expand(4, 10**8)]}, "more numbers than memory"),
        (nest(60), "holds more than"),
        (nest(200), "within each other"),
        (torch.eye(3).to_sparse(), "layout"),
    ],
    ids=["wide", "wide within", "nested", "deep", "sparse"],
)
def test_tensors_that_are_larger_than_their_file_are_refused(tmp_path, content, told):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(TensorFileError, match=told):
        read_tensors(tmp_path / "x.pt")


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    torch.save({"a": torch.zeros(2_000_000)}, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as old,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info.filename))
    assert read_tensors(tmp_path / "x.pt")["a"].numel() == 2_000_000
    with pytest.raises(TensorFileError, match="unpack to"):
        read_tensors(tmp_path / "y.pt")
