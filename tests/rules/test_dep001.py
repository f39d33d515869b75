"""DEP001 on traces written by hand: where the samples lost their differences, and when that counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.rules import rule
from unvanish.rules._tiers import DATA

Row = tuple[Site, dict[str, float]]


def _build_trace(path: list[Row], *others: Row, **facts: Any) -> Trace:
    """A depth axis along `path`, from the input to the loss, and other sites."""
    rows = [*reversed(path), *others]
    values = np.full((1, len(rows), len(STATISTICS)), np.nan)
    for i, (_, numbers) in enumerate(rows):
        for name, number in numbers.items():
            values[0, i, list(STATISTICS).index(name)] = number
    axes = (Axis("x", "depth", tuple(range(len(path)))),) if path else ()
    made: Any = facts
    return Trace(tuple(site for site, _ in rows), values, axes, made)


def _node(name: str, spread: float, cosine: float = 0.5, family: str = "activation", **more: Any) -> Row:
    facts: Any = {"family": family, "shape": (32, 64), **more}
    return Site.node(name, family, 0, facts), {"spread": spread, "cosine": cosine}


def _batch(spread: float, floating: bool = True) -> Row:
    return Site.input("x", {"floating": floating}), {"spread": spread}


def _judge(path: list[Row], *others: Row, **settings: float) -> Finding:
    (found,) = rule("DEP001").check(_build_trace(path, *(others or (_batch(1.0),))), **settings)
    return found


def _is_silent(path: list[Row], *others: Row, **settings: float) -> bool:
    return rule("DEP001").check(_build_trace(path, *(others or (_batch(1.0),))), **settings) == []


OPEN = _node("open", 0.5)


@pytest.mark.parametrize(
    ("spread", "cosine", "severity"),
    [
        (0.0011, 0.5, None),
        (0.0010, 0.5, None),
        (0.0009, 0.5, "warning"),
        (0.00011, 0.5, "warning"),
        (0.00009, 0.5, "error"),
        (0.1, 0.9999, None),
        (0.1, 0.99991, "warning"),
        (0.1, 0.99998, "warning"),
        (0.1, 0.999991, "error"),
    ],
)
def test_the_last_two_activations_decide(spread: float, cosine: float, severity: str | None) -> None:
    path = [OPEN, _node("a", spread, cosine), _node("b", spread, cosine)]
    found = rule("DEP001").check(_build_trace(path, _batch(1.0)))
    assert [f.severity for f in found] == ([severity] if severity else [])


def test_one_activation_that_keeps_the_samples_apart_is_enough() -> None:
    lost = _node("a", 1e-5)
    assert _is_silent([OPEN, lost, lost, OPEN])
    assert _is_silent([lost, lost, OPEN, lost])
    assert _is_silent([OPEN, OPEN])
    assert _judge([OPEN, OPEN, OPEN, lost, _node("b", 1e-5)]).sites == ("a", "b")


def test_the_limits_are_settings() -> None:
    path = [OPEN, _node("a", 0.02), _node("b", 0.02)]
    assert _is_silent(path)
    assert _judge(path, limit=0.1).evidence[0].limit == "> 0.1"
    near = [OPEN, _node("a", 0.1, 0.98), _node("b", 0.1, 0.98)]
    assert _is_silent(near)
    assert _judge(near, alike=0.9).evidence[1].limit == "< 0.9"


def test_it_names_the_activations_from_which_on_all_are_alike() -> None:
    path = [_node("a", 1e-4), OPEN, _node("c", 5e-4), _node("d", 4e-4), _node("e", 2e-4, 0.9)]
    found = _judge(path, _batch(0.7), _batch(1.5), _batch(9.0, floating=False))
    assert found.sites == ("c", "d", "e")
    assert found.cause == "from c on all samples look alike: they differ by 2.0e-04 of their size"
    assert [e.value for e in found.evidence] == [2e-4, 0.9, 1.5]
    assert {e.site for e in found.evidence[:2]} == {"e"}
    assert found.evidence[2].name == "spread of the inputs"
    assert found.direction == "vanishing"
    assert found.weight == pytest.approx(DATA.weigh(math.log(5.0)))
    assert all(remedy.targets == found.sites for remedy in found.remedies)


@pytest.mark.parametrize(("spread", "size"), [(1e-6, math.log(1e3)), (1e-9, 8.0), (0.0, 8.0)])
def test_a_collapse_weighs_its_nats_up_to_eight(spread: float, size: float) -> None:
    found = _judge([OPEN, _node("a", spread), _node("b", spread)])
    assert found.severity == "error" and found.weight == pytest.approx(DATA.weigh(size))


def test_a_whole_path_may_be_alike() -> None:
    assert _judge([_node("a", 1e-5), _node("b", 1e-5)]).sites == ("a", "b")


@pytest.mark.parametrize(
    "extra",
    [
        _node("head", 0.5, family="layer"),  # the last layer makes the output
        _node("softmax", 0.5, output=True),
        _node("narrow", 0.5, shape=(32, 3)),
        _node("one image", 0.5, shape=(32, 3, 1, 1)),
        _node("view", 0.5, family="view"),
        _node("not measured", math.nan),
    ],
)
def test_what_is_not_hidden_is_passed_over(extra: Row) -> None:
    assert _judge([OPEN, _node("a", 1e-5), _node("b", 1e-5), extra]).sites == ("a", "b")


@pytest.mark.parametrize(
    "extra", [_node("wide", 0.5, shape=(32, 4)), _node("image", 0.5, shape=(32, 1, 2, 2))]
)
def test_four_features_are_enough(extra: Row) -> None:
    assert _is_silent([OPEN, _node("a", 1e-5), _node("b", 1e-5), extra])


def test_an_activation_of_unknown_shape_is_passed_over() -> None:
    facts: Any = {"family": "activation"}
    unknown = Site.node("unknown", "relu", 0, facts), {"spread": 0.5, "cosine": 0.5}
    assert _judge([_node("a", 1e-5), _node("b", 1e-5), unknown]).sites == ("a", "b")


def test_a_layer_before_the_last_one_is_hidden() -> None:
    path = [OPEN, _node("a", 1e-5, family="layer"), _node("b", 1e-5), _node("head", 0.5, family="layer")]
    assert _judge(path).sites == ("a", "b")


@pytest.mark.parametrize(
    ("path", "others", "reason"),
    [
        ([_node("a", 1e-5)], [_batch(1.0)], "no hidden activations"),
        ([], [_batch(1.0)], "no hidden activations"),
        ([_node("a", 1e-5), _node("head", 1e-5, family="layer")], [_batch(1.0)], "no hidden activations"),
        ([OPEN, OPEN], [], "one sample, or no float input"),
        ([OPEN, OPEN], [_batch(math.nan)], "one sample, or no float input"),
        ([OPEN, OPEN], [_batch(1.0, floating=False)], "one sample, or no float input"),
        ([OPEN, OPEN], [_batch(0.09)], "nearly equal to begin with"),
    ],
)
def test_reasons_not_to_judge(path: list[Row], others: list[Row], reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        rule("DEP001").check(_build_trace(path, *others))


def test_inputs_at_the_limit_and_two_activations_are_judged() -> None:
    assert _judge([_node("a", 1e-5), _node("b", 1e-5)], _batch(0.1), _batch(0.0)).evidence[2].value == 0.1


def test_in_a_watched_run_the_activations_stand_for_the_inputs() -> None:
    assert rule("DEP001").live
    path = [_node("first", 0.4), _node("a", 1e-5), _node("b", 1e-5)]
    (found,) = rule("DEP001").check(_build_trace(path, live=True, history={"loss": np.ones(3)}))
    assert (found.evidence[2].name, found.evidence[2].value) == ("spread of the first activations", 0.4)
    assert "differ by less than 0.001 of their size" in found.cause


def test_a_spread_above_the_limit_is_exact_in_a_watched_run_too() -> None:
    path = [OPEN, _node("a", 0.001, 0.99999), _node("b", 0.001, 0.99999)]
    (found,) = rule("DEP001").check(_build_trace(path, live=True, history={"loss": np.ones(3)}))
    assert "differ by 1.0e-03 of their size" in found.cause


@pytest.mark.parametrize("level", [0.05, 1.0])
def test_a_training_that_has_converged_is_not_judged(level: float) -> None:
    """Ten steps at a loss of 1, then thirty at `level`."""
    loss = np.r_[np.ones(10), np.full(30, level)]
    path = [OPEN, _node("a", 1e-5), _node("b", 1e-5)]
    found = rule("DEP001").check(_build_trace(path, live=True, history={"loss": loss}))
    assert bool(found) == (level == 1.0)
