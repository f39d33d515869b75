"""Arguments: names, types, limits, layers, and how they are typed in a shell."""

from __future__ import annotations

import dataclasses

import pytest

from unvanish.cli.errors import CallError
from unvanish.cli.pairs import read_pairs
from unvanish.train.arguments import Arguments, settle
from unvanish.train.errors import TrainError


def test_later_layers_win():
    found = settle({"lr0": 0.1, "epochs": 8}, {"epochs": 3})
    assert (found.lr0, found.epochs, found.batch) == (0.1, 3, 64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 3}, "no argument 'epoch' (did you mean 'epochs'?)"),
        ({"weight-deca": 3}, "did you mean 'weight_decay'?"),
        ({"optimizer": "adma"}, "did you mean 'adam'?"),
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
