"""NUM001 on traces written by hand: which number that is not finite is the first, and what it harms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding
from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.rules import rule

NAMES = tuple(STATISTICS)


def _build_trace(*parts: tuple[Site, dict[str, float]], axes: tuple[Axis, ...] = (), **facts: Any) -> Trace:
    values = np.full((1, len(parts), len(NAMES)), np.nan)
    for i, (_, own) in enumerate(parts):
        for name, value in own.items():
            values[0, i, NAMES.index(name)] = value
    every: Any = facts
    return Trace(tuple(site for site, _ in parts), values, axes, every)


def _build_parameter(
    name: str, gradient: float = 0.0, weight: float = 0.0, trainable: bool = True
) -> tuple[Site, dict[str, float]]:
    site = Site.parameter(name, "Linear", {"trainable": trainable})
    return site, {"gradient_nonfinite": gradient, "weight_nonfinite": weight}


def _build_producer(passed: Any = "backward", **facts: Any) -> tuple[Site, dict[str, float]]:
    own: Any = {"nonfinite_first": True, "produces": passed, "nonfinite_kind": "NaN", **facts}
    return Site.node("root", "sqrt", 0, own), {}


def _build_input(share: float) -> tuple[Site, dict[str, float]]:
    return Site.input("x", {}), {"forward_nonfinite": share}


def _judge(*parts: tuple[Site, dict[str, float]], **facts: Any) -> Finding | None:
    found = rule("NUM001").check(_build_trace(*parts, **facts))
    return found[0] if found else None


def test_finite_numbers_are_no_fault() -> None:
    assert _judge(_build_parameter("w"), _build_input(0.0), loss=1.0) is None
    assert _judge(_build_parameter("w"), _build_input(0.0)) is None  # without a loss
    assert _judge(_build_parameter("w", math.nan, math.nan)) is None  # not measured


def test_a_gradient_alone_names_the_loss() -> None:
    frozen = _build_parameter("e", trainable=False)
    found = _judge(_build_parameter("w", 0.01), _build_parameter("v"), frozen, loss=2.5)
    assert found is not None and found.severity == "error" and found.direction == "blocked"
    assert found.cause == "the loss is 2.5 in loss" and found.sites == ("loss",)
    first, loss, gradients = found.evidence
    assert first.site == "loss" and loss.value == 2.5
    assert gradients.value == 1 and gradients.unit == "of 2"
    assert [r.cure for r in found.remedies] == ["bound-operation", "stable-function"]
    assert all(r.targets == ("loss",) for r in found.remedies)
    assert found.weight == 1000.0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_alone_comes_from_finite_activations(loss: float) -> None:
    found = _judge(_build_parameter("w"), loss=loss)
    assert found is not None and found.cause == f"the loss is {loss} in loss, from finite activations"


@pytest.mark.parametrize(("way", "when"), [("forward", "forward"), ("backward", "only in the backward pass")])
def test_the_producer_is_named_with_its_pass(way: str, when: str) -> None:
    found = _judge(_build_producer(way), _build_parameter("w", 1.0), loss=1.0)
    assert found is not None and found.cause == f"sqrt makes the first NaN in root, {when}"
    assert found.sites == ("root",) and found.remedies[0].targets == ("root",)


def test_the_first_of_two_producers_is_named() -> None:
    later = Site.node("log", "log", 0, {"nonfinite_first": True}), {}
    found = _judge(_build_producer("forward"), later, loss=math.nan)
    assert found is not None and found.sites == ("root",)


def test_a_producer_without_a_kind_and_with_its_place_as_name() -> None:
    site = Site.node("sqrt", "sqrt", 0, {"nonfinite_first": True, "produces": "forward"})
    found = _judge((site, {}), loss=1.0)
    assert found is not None and found.cause == "sqrt makes the first NaN or infinity, forward"


def test_a_stored_number_goes_before_a_fed_one_and_that_before_a_producer() -> None:
    stored = [_build_parameter("w"), _build_parameter("v", 1.0, 0.5), _build_parameter("u", 1.0, 0.5)]
    found = _judge(_build_producer(), _build_input(0.1), *stored, loss=math.nan)
    assert found is not None and found.sites == ("v",)
    assert found.cause == "a NaN or an infinity is stored in v, before anything was computed"
    assert [(r.cure, r.targets, r.safety) for r in found.remedies] == [
        ("restore-checkpoint", ("v",), "advice")
    ]
    found = _judge(_build_producer(), _build_input(0.1), _build_parameter("w"), loss=math.nan)
    assert found is not None and found.sites == ("x",)
    assert found.cause == "a NaN or an infinity is fed in x, before anything was computed"
    assert [(r.cure, r.targets, r.safety) for r in found.remedies] == [("clean-input", ("x",), "advice")]


def _judge_deep(gain: float, weight: float = 0.0, fed: float = 0.0, **facts: Any) -> Finding:
    """Twelve layers, 64 wide, each of which multiplies the gradient by exp(gain); the loss is infinite."""
    own: Any = {"row_layers": 1, "row_trainable": True, "cut": True, "shape": (8, 64)}
    parts: list[Any] = [
        (Site.node(f"layer{i}", "linear", 0, own), {"backward_log": gain * i}) for i in range(12)
    ]
    parts += [_build_parameter("w", 1.0, weight), _build_input(fed)]
    trace = _build_trace(*parts, axes=(Axis("input", "depth", tuple(range(12))),), loss=math.inf, **facts)
    (found,) = rule("NUM001").check(trace)
    return found


def test_an_overflow_of_the_loss_alone_is_a_note_if_the_gradient_explodes() -> None:
    found = _judge_deep(1.0, loss_overflow=True)
    assert found.severity == "note" and found.weight == 1.0
    assert _judge_deep(-1.0, loss_overflow=True).severity == "error"  # it vanishes
    assert _judge_deep(0.1, loss_overflow=True).severity == "error"  # within the limit
    assert _judge_deep(1.0).severity == "error"  # more than the loss overflows
    assert _judge_deep(1.0, 0.5, loss_overflow=True).severity == "error"  # stored before
    assert _judge_deep(1.0, fed=0.5, loss_overflow=True).severity == "error"  # fed


def _judge_step(**changes: Any) -> Finding | None:
    names = [f"p{i}" for i in range(20)]
    broken = {"step": 7, "last_healthy": 6, "gradients": names, "weights": [], "parameters": 40}
    broken |= {"loss": 1.0, "heard": True}
    return _judge(live=True, broken={**broken, **changes})


def test_a_watched_training_names_the_step_and_its_gradients() -> None:
    assert _judge(live=True) is None
    found = _judge_step(loss=2.0)
    assert found is not None and found.severity == "error" and found.weight == 1000.0
    assert "at step 7" in found.cause and "20 of 40 gradients" in found.cause
    assert "the last healthy step was 6" in found.cause
    assert found.sites == tuple(f"p{i}" for i in range(12))
    assert [(e.value, e.unit) for e in found.evidence] == [(7, ""), (20, "of 40"), (0, "of 40"), (2.0, "")]
    assert [r.cure for r in found.remedies] == ["skip-step", "replay"]


@pytest.mark.parametrize(("last", "words"), [(0, "the last healthy step was 0"), (-1, "no step was healthy")])
def test_the_last_healthy_step_may_be_the_first_or_none(last: int, words: str) -> None:
    found = _judge_step(last_healthy=last)
    assert found is not None and words in found.cause


def test_weights_that_are_not_finite_go_before_gradients_and_an_infinite_loss_is_named() -> None:
    found = _judge_step(weights=["w"], loss=math.inf)
    assert found is not None and found.sites == ("w",)
    assert found.cause.startswith("at step 7 the weights of w hold a NaN or an infinity already")
    found = _judge_step(loss=math.inf)
    assert found is not None and found.cause.startswith("at step 7 the loss is inf, and 20 gradients with it")


def test_a_step_without_known_gradients_names_none() -> None:
    found = _judge_step(gradients=[])
    assert found is not None and "0 of 40 gradients are not finite, first ?" in found.cause
    found = _judge_step()
    assert found is not None and "not finite, first p0;" in found.cause


@pytest.mark.parametrize(
    ("loss", "heard", "said"),
    [
        (2.0, True, [2.0]),
        (math.nan, True, ["not finite"]),
        (math.inf, True, ["not finite"]),
        (math.nan, False, []),
    ],
)
def test_a_loss_that_nobody_knows_is_no_evidence(loss: float, heard: bool, said: list[Any]) -> None:
    found = _judge_step(loss=loss, heard=heard)
    assert found is not None and [e.value for e in found.evidence if e.name.startswith("loss")] == said
