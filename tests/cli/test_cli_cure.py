"""`unvanish cure`: exit codes, the files it writes, and what it refuses."""

from __future__ import annotations

import pytest
import torch

import unvanish
from unvanish.clinic.prescription import Prescription

SICK = ("cure", "net.py:sick", "--data", "net.py:batch", "--loss", "cross_entropy")
WELL = ("cure", "net.py:made", "--data", "net.py:batch", "--loss", "cross_entropy")


def test_a_cure_gives_0_and_its_files(call, folder):
    answer = call(*SICK, "--out", "cure.yaml", "--html", "cure.html")
    assert answer.code == 0
    assert answer.err == "wrote cure.yaml\nwrote cure.html\n"
    assert "ACT002" in answer.out
    assert "\x1b" not in answer.out
    assert "prescription" in (folder / "cure.html").read_text().lower()
    assert Prescription.load(folder / "cure.yaml")


def test_the_file_heals_the_model_in_a_script(call, folder, monkeypatch):
    assert call(*SICK, "--out", "cure.yaml").code == 0
    monkeypatch.syspath_prepend(str(folder))
    import net

    model, batch = net.sick(), net.batch()
    loss = torch.nn.CrossEntropyLoss()
    assert not unvanish.check(model, batch, loss).healthy
    unvanish.apply(model, "cure.yaml", batch=batch, loss=loss)
    assert unvanish.check(model, batch, loss).healthy


def test_a_healthy_model_needs_nothing(call, folder):
    answer = call(*WELL, "--out", "cure.yaml")
    assert answer.code == 0
    assert "nothing to prescribe, cure.yaml was not written" in answer.err
    assert not (folder / "cure.yaml").exists()


def test_no_cure_gives_1_and_the_reason(call):
    answer = call(*SICK, "--allow", "exact")
    assert answer.code == 1
    assert "not cured: only remedies that keep its function were considered" in answer.out


def test_a_guessed_loss_is_said(call):
    answer = call("cure", "net.py:sick", "--input", "10")
    assert answer.code == 0
    assert "assumed: " in answer.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--allow", "all"), "--allow 'all' is not a kind of remedy; use exact or retrain"),
        (("--out", "cure.json"), "--out cure.json must end in .yaml"),
        (("--html", "no/cure.html"), "there is no folder no"),
    ],
)
def test_what_it_refuses(call, arguments, expected):
    answer = call(*SICK, *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert expected in answer.line


def test_a_model_that_crashes_names_the_place(call):
    answer = call("cure", "net.py:Crash", "--input", "10")
    assert answer.code == 2
    assert "crashed in inner.1" in answer.line
