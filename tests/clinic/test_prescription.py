"""Prescriptions as files: they come back as they went, and what is wrong in one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import unvanish
from unvanish.clinic.prescription import Prescription, PrescriptionError, fingerprint
from unvanish.core.diagnosis import Remedy
from unvanish.cures import cures
from unvanish.surgery.receipt import SurgeryError

REMEDY = Remedy("zero-bias", ("0.bias",), "units off: 'quotes', ünïcode", "retrain")


def net(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def test_yaml_comes_back_as_it_went(tmp_path: Path) -> None:
    more = Remedy(
        "reinitialise", ("0.weight", "2.weight"), "", "retrain", {"gain": 1.4142, "method": "orthogonal"}
    )
    wanted = Prescription((REMEDY, more), fingerprint(net()))
    found = Prescription.load(wanted.save(tmp_path / "cure.yaml"))
    assert found == wanted
    assert found.yaml() == wanted.yaml()


def test_it_applies_from_a_file_and_is_taken_back(tmp_path: Path) -> None:
    path = Prescription((REMEDY,), fingerprint(net())).save(tmp_path / "cure.yaml")
    model = net()
    before = model[0].bias.detach().clone()  # type: ignore[index, union-attr]
    receipt = unvanish.apply(model, path)
    assert not model[0].bias.any()  # type: ignore[index, union-attr]
    receipt.undo()
    assert torch.equal(model[0].bias, before)  # type: ignore[index, union-attr]


def test_another_architecture_is_refused_unless_forced(tmp_path: Path) -> None:
    path = Prescription((REMEDY,), fingerprint(net())).save(tmp_path / "cure.yaml")
    with pytest.raises(
        PrescriptionError, match=r"written for Sequential with 58 parameters, this is Sequential with 86"
    ):
        unvanish.apply(net(12), path)
    unvanish.apply(net(12), path, force=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("unvanish: 1\ncures: [{cure: zero-bais}]", "no cure 'zero-bais'.*did you mean 'zero-bias'"),
        ("unvanish: 1\ncures: [{cure: zero-bias, target: [a]}]", "no key 'target'.*did you mean 'targets'"),
        ("unvanish: 1\ncures: [{cure: reinitialise, parameters: {gian: 1}}]", "no parameter 'gian'.*'gain'"),
        ("unvanish: 9\ncures: []", "format 9"),
        ("something: else", "no `cures:`"),
        ("a: [b", "not YAML"),
        ("unvanish: 1\ncures: {a: b}", "must be a list"),
        ("unvanish: 1\ncures: [{cure: zero-bias, targets: a}]", "targets must be a list"),
        ("unvanish: 1\ncures: ['zero-bias']", "not a table"),
        ("!!python/object/apply:os.system ['true']", "the tag .* is refused"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "cure.yaml"
    path.write_text(text)
    with pytest.raises(PrescriptionError, match=told) as error:
        Prescription.load(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrescriptionError, match="cannot read the prescription"):
        unvanish.apply(net(), tmp_path / "none.yaml")


def test_advice_is_never_applied() -> None:
    with pytest.raises(SurgeryError, match="advice for a person"):
        unvanish.apply(net(), [Remedy("zero-bias", ("0.bias",), "", "advice")])


def test_code_is_python() -> None:
    for name, cure in cures().items():
        _, remedy = cure.case()
        text = Prescription((remedy,)).code()
        assert text, name
