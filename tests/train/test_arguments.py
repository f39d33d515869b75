"""Arguments: names, types, limits, layers, and how they are typed in a shell."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from unvanish.cli.errors import CallError
from unvanish.cli.pairs import read_pairs
from unvanish.train.arguments import HINTS, NAMES, Arguments, settle
from unvanish.train.errors import TrainError


def test_later_layers_win():
    found = settle({"lr0": 0.1, "epochs": 8}, {"epochs": 3})
    assert (found.lr0, found.epochs, found.batch) == (0.1, 3, 64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 3}, "no argument 'epoch' (did you mean 'epochs'?)"),
        ({"weight-deca": 3}, "did you mean 'weight_decay'?"),
        ({"optimizer": "sgdd"}, "did you mean 'sgd'?"),
        ({"epochs": 0}, "epochs=0 is out of range; it is at least 1"),
        ({"fraction": 1.5}, "between 0 and 1"),
        ({"fraction": float("nan")}, "between 0 and 1"),
        ({"epochs": "many"}, "epochs='many' is not a whole number"),
        ({"epochs": 2.5}, "is not a whole number"),
        ({"val": "yes please"}, "is not true or false"),
        ({"epochs": True}, "is not a whole number"),
        ({"clip": "zcilp"}, "did you mean 'zclip'?"),
        ({"freeze": [1, "a"]}, "freeze=[1, 'a'] is not"),
    ],
)
def test_what_is_wrong_is_named(given, message):
    with pytest.raises(TrainError) as caught:
        settle(given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"lr0": "1e-3"}, 1e-3),
        ({"lr0": 1}, 1.0),
        ({"epochs": 3.0}, 3),
        ({"clip": "1.0"}, 1.0),
        ({"clip": "ZClip"}, "zclip"),
        ({"device": 0}, 0),
        ({"device": "cpu"}, "cpu"),
        ({"device": [0, 1]}, [0, 1]),
        ({"freeze": ["stem"]}, ["stem"]),
        ({"time": "none"}, None),
        ({"amp": False}, False),
        ({"cos-lr": True}, True),
    ],
)
def test_values_are_converted(given, value):
    found = getattr(settle(given), next(iter(given)).replace("-", "_"))
    assert found == value and type(found) is type(value)


def test_every_argument_has_help_and_a_default_that_fits():
    for field in dataclasses.fields(Arguments):
        assert field.metadata["help"], field.name
    assert settle(Arguments().plain()) == Arguments()


@pytest.mark.parametrize(
    ("batch", "nbs", "accumulate", "steps"),
    [(64, None, None, 1), (16, 64, None, 4), (48, 64, None, 1), (128, 64, None, 1), (16, 64, 2, 2)],
)
def test_the_nominal_batch_is_reached_by_accumulation(batch, nbs, accumulate, steps):
    assert Arguments(batch=batch, nbs=nbs, accumulate=accumulate).steps_of == steps


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["epochs=3", "lr0=1e-3", "val=false"], {"epochs": 3, "lr0": 1e-3, "val": False}),
        (["--epochs", "3", "--no-val", "--cos-lr"], {"epochs": 3, "no_val": None, "cos_lr": True}),
        (["--epochs=3", "freeze=[0,1]", "time=none"], {"epochs": 3, "freeze": [0, 1], "time": "none"}),
        (["model=a=b.yaml", "name=12x"], {"model": "a=b.yaml", "name": "12x"}),
        (["--exist-ok", "epochs=2"], {"exist_ok": True, "epochs": 2}),
        (["source=Ein Hund: er rennt."], {"source": "Ein Hund: er rennt."}),
        (["resume"], None),
        (["=3"], None),
    ],
)
def test_pairs_and_flags(words, found):
    if found is None:
        with pytest.raises(CallError, match="is not an argument; write name=value"):
            read_pairs(words)
        return
    if "no_val" in found:
        found = {**{k: v for k, v in found.items() if k != "no_val"}, "val": False}
    assert read_pairs(words) == found


NEVER = [
    math.nan, math.inf, -math.inf, "nan", "-inf", 1e400, -1e20, 10**400, -(10**400), object(), {}, {"a": 1},
    b"1", {1}, lambda: 1, [[1]], [math.nan], [None], "a\nb", "x" * 5000, "\x1b[31m", "\x00", 1j, type,
    np.array([1, 2]),
]  # fmt: skip
NOWHERE = ["../x", "a/b", "..", ".", "/etc", "x" * 300, "a\\b"]


@pytest.mark.parametrize("name", NAMES)
def test_what_no_argument_can_be_is_refused_in_one_line(name):
    for value in NEVER:
        kind = str(HINTS[name])
        if isinstance(value, str) and value.isprintable() and len(value) < 100 and "str" in kind:
            continue  # a text that names nothing is found when it is looked for
        with pytest.raises(TrainError) as caught:
            settle({name: value})
        text = str(caught.value)
        assert text.startswith(f"{name}=") and len(text) < 400 and text.isprintable(), (value, text)


@pytest.mark.parametrize("name", [n for n in NAMES if "int" in str(HINTS[n]) or "float" in str(HINTS[n])])
@pytest.mark.parametrize("value", [-3, 1e20, 2**70, [-1], [1e30], "-3"])
def test_numbers_that_would_exhaust_a_machine_are_refused_or_harmless(name, value):
    try:
        found = getattr(settle({name: value}), name)
    except TrainError as error:
        assert len(str(error)) < 400
        return
    unbounded = ("lr0", "warmup_bias_lr", "weight_decay", "warmup_epochs", "ema_tau", "device")
    gains = ("box", "cls", "dfl", "mask", "clip", "pretrained", "resume", "amp")
    assert name in (*unbounded, *gains) or isinstance(found, str), (name, found)


@pytest.mark.parametrize("value", NOWHERE)
def test_a_name_is_not_a_path(value):
    with pytest.raises(TrainError, match="is not the name of a folder; project= takes a path"):
        settle({"name": value})


def test_the_same_thing_is_not_said_in_two_ways():
    with pytest.raises(TrainError, match="accumulate=2 and nbs=64 are both given"):
        settle({"accumulate": 2, "nbs": 64})
    with pytest.raises(TrainError, match="cos_lr=True and schedule='step' are both given"):
        settle({"cos-lr": True, "schedule": "step"})
    assert settle({"cos_lr": True, "schedule": "cosine"}).curve == "cosine"
    assert settle({"nbs": 64}, {"accumulate": 2}).steps_of == 2  # of a YAML, and the user's own


def test_a_task_is_one_that_there_is():
    with pytest.raises(TrainError, match=r"task='clasify' is not a word .did you mean 'classify'.*detect"):
        settle({"task": "clasify"})


def test_numbers_of_numpy_are_numbers():
    found = settle({"lr0": np.float32(0.5), "epochs": np.int64(3), "freeze": np.int32(1)})
    assert (found.lr0, found.epochs, found.freeze) == (0.5, 3, 1) and type(found.epochs) is int
