"""The contract of arguments: a wrong value of any kind, for any argument of the verbs, is one clear line."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.clinic import arguments
from unvanish.probes import CheckError, ModelCrash
from unvanish.store import StoreError
from unvanish.surgery.receipt import SurgeryError

KINDS: dict[str, Any] = {
    "none": None, "empty text": "", "text": "x", "two lines": "a\nb", "long": "x" * 5000, "nothing": 0,
    "minus": -1, "three": 3, "fraction": 1.5, "huge": 10**30, "digits": 10**5000, "nan": math.nan,
    "inf": math.inf,
    "flag": True, "list": [], "nans": [math.nan], "nones": (None, None), "texts": ["a"], "dict": {},
    "numbered": {1: 2},
    "set": {1}, "bytes": b"x", "complex": 1j, "object": object(), "class": nn.Linear, "function": lambda: 1,
    "array": np.zeros((8, 6)), "tensor": torch.zeros(3), "empty": torch.zeros(0, 6), "five": (1, 2, 3, 4, 5),
    "whole": torch.ones(8, 6, dtype=torch.long), "imaginary": torch.zeros(8, 6, dtype=torch.complex64),
    "hollow": torch.empty(8, 6, device="meta"), "wide": torch.zeros(8, 7), "loader": [torch.zeros(8, 6)],
}  # fmt: skip
OURS = (CheckError, ModelCrash, SurgeryError, StoreError, ValueError)
VERBS = {"check": {}, "forecast": {}, "cure": {"budget": 0.5, "steps": 2}, "watch": {}}


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def call(verb: str, given: dict[str, Any]) -> None:
    """Call a verb with arguments that fit, but for those given."""
    x, y = torch.randn(8, 6), torch.randint(3, (8,))
    fitting: dict[str, Any] = {"model": make_net(), **VERBS[verb]}
    if verb in ("check", "cure"):
        fitting |= {"batch": (x, y), "loss": nn.CrossEntropyLoss()}
    if verb == "forecast" and "input_size" not in given:
        fitting |= {"batch": x}
    made = getattr(unvanish, verb)(**{**fitting, **given})
    if verb == "watch":
        made.close()


def list_arguments() -> list[tuple[str, str]]:
    """Every argument of every verb."""
    return [(v, name) for v in VERBS for name in inspect.signature(getattr(unvanish, v)).parameters]


@pytest.mark.parametrize(("verb", "name"), list_arguments())
def test_every_wrong_value_is_one_line_of_ours(verb, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, value in KINDS.items():
        try:
            call(verb, {name: value})
        except OURS as error:
            text = str(error)
            trace = error.__traceback__
            while trace.tb_next is not None:
                trace = trace.tb_next
            file = trace.tb_frame.f_code.co_filename
            assert "/unvanish/" in file, (kind, f"not ours: {type(error).__name__}: {text}")
            if not isinstance(error, ModelCrash):
                assert len(text) < 500 and "\n" not in text, (kind, text)


def test_what_a_number_may_be_is_said():
    with pytest.raises(
        CheckError, match=r"^power is nan; it is the mean square of the inputs, a number from 1e-30"
    ):
        unvanish.forecast(make_net(), (6,), power=math.nan)
    with pytest.raises(
        CheckError, match=r"^steps is 'x'; it is steps of the training.*a whole number from 1 to 1e\+06"
    ):
        unvanish.cure(make_net(), torch.randn(8, 6), steps="x")
    with pytest.raises(CheckError, match=r"^input_size is \(3, -1\); it is the shape of one sample, as in"):
        unvanish.forecast(make_net(), (3, -1))
    with pytest.raises(CheckError, match="input_size is"):
        unvanish.forecast(make_net(), (10**9, 10**9, 10**9))


def test_every_number_is_in_the_table():
    for name, limits in arguments.NUMBERS.items():
        arguments.require_number(name, int(limits.most) if limits.whole else limits.most)
        for wrong in (math.nan, math.inf, True, "1", None, limits.most * 2 + 1):
            with pytest.raises(CheckError):
                arguments.require_number(name, wrong)


def test_the_users_own_error_is_the_cause():
    def loss(output, y):
        raise ZeroDivisionError("mine")

    with pytest.raises(ModelCrash, match="the loss raised ZeroDivisionError in loss: mine") as caught:
        unvanish.check(make_net(), (torch.randn(8, 6), torch.zeros(8)), loss)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
