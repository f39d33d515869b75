"""Where a number that drifts is going: what moves on is foretold, what flattens or wavers is not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Axis, Site, Trace
from unvanish.rules import rule
from unvanish.rules._trend import find_crossing, round_steps

AT = np.arange(0, 300, 5, dtype=np.float64)  # 60 looks


def test_a_straight_line_arrives_when_it_says() -> None:
    found = find_crossing(AT, AT / 400, 1.0)
    assert found is not None and found.slope == pytest.approx(1 / 400)
    assert found.steps == pytest.approx(400 - 290, abs=6) and found.start == pytest.approx(5 / 400)
    assert find_crossing(AT, -AT / 400, -1.0) is not None  # downwards too


def test_looks_may_be_uneven_and_may_miss() -> None:
    at = np.cumsum(np.random.default_rng(0).integers(1, 9, 60)).astype(np.float64)
    values = at / (at[-1] * 1.2)
    values[::7] = math.nan
    found = find_crossing(at, values, 1.0)
    assert found is not None and found.steps == pytest.approx(0.2 * at[-1], rel=0.15)


@pytest.mark.parametrize(
    "values",
    [
        1 - np.exp(-AT / 80),  # flattens below the limit
        0.8 * np.minimum(1, AT / 150),  # has stopped
        AT / 900,  # is less than two thirds of the way
        np.where(AT > 200, 0.8, 0.0),  # jumped, and stays
        0.7 + 0.1 * np.random.default_rng(1).standard_normal(60),  # wavers
        np.maximum(AT / 250, 1.05),  # is there already
        AT[::-1] / 400,  # goes away
    ],
)
def test_what_does_not_arrive_is_not_foretold(values: Any) -> None:
    assert find_crossing(AT, values, 1.05) is None


def test_few_looks_show_no_direction() -> None:
    assert find_crossing(AT[:11], AT[:11] / 60, 1.0) is None
    assert find_crossing(AT[:12], AT[:12] / 60, 1.0) is not None


@pytest.mark.parametrize(
    ("steps", "text"), [(0.2, "1"), (7.1, "8"), (43, "40"), (387, "400"), (1234, "1 000")]
)
def test_steps_are_said_roundly(steps: float, text: str) -> None:
    assert round_steps(steps) == text


def build(statistics: dict[str, Any], family: str, facts: dict[str, Any], role: str = "node") -> Trace:
    """A watched run with one site and these statistics at its looks, its loss as at the start."""
    site = Site("blocks.0", "x", 0, role, {"order": 0, "family": family, **facts})  # type: ignore[arg-type, typeddict-item]
    values = np.stack([np.broadcast_to(v, AT.shape) for v in statistics.values()], -1)[:, None, :]
    columns = {k: np.ones(300) for k in ("loss", "lr", "norm_log")} | {"step": np.arange(300.0)}
    known: Any = {
        "live": True, "steps": AT.astype(int).tolist(), "history": columns,
        "start": [math.log(facts.get("shape", (8,))[-1])] * 5,
    }  # fmt: skip
    axis = (Axis("depth", "depth", (0,)),)
    return Trace((site,), values, axis, known, tuple(statistics))


GROWS = np.exp(AT / 290 * math.log(40))  # from 1 to 40
RISES = AT / 290
TRACES = {
    "ATT001": build(
        {"logit_max": GROWS, "entropy": 0.8, "head_entropy": 0.6}, "attention", {"tokens": 8}
    ),
    "MOE001": build(
        {"load_excess": 2.5 * RISES, "load_entropy": 0.5, "idle_experts": 0.0},
        "router",
        {"experts": 4, "choices": 1, "rows": 256},
    ),
    "ACT003": build(
        {"dead": 0.45 * RISES, "cosine": 0.1, "forward_rms": 1.0},
        "activation",
        {"rectifier": True, "shape": (16, 64)},
    ),
    "OUT003": build({"log_z": 3.5 + 27 * RISES}, "layer", {"shape": (16, 32)}),
    "DEP002": build({"forward_rms": GROWS**2}, "add", {}),
    "OPT002": build(
        {"gradient_log": -5 - 9.5 * RISES, "update_log": -7.0},
        "",
        {"numel": 64, "dimensions": 2, "epsilon": 1e-8},
        "parameter",
    ),
}  # fmt: skip


def judge(code: str, trace: Trace) -> Finding | None:
    found = rule(code).check(trace)
    return found[0] if found else None


@pytest.mark.parametrize("code", TRACES)
def test_each_rule_says_when_its_limit_will_be_crossed(code: str) -> None:
    found = judge(code, TRACES[code])
    assert found is not None and found.severity == ("note" if code == "OPT002" else "warning")
    assert "at this rate in about" in found.cause and found.sites and found.remedies


@pytest.mark.parametrize("code", TRACES)
def test_each_is_silent_if_the_growth_has_ended(code: str) -> None:
    trace = TRACES[code]
    stopped = trace.values.copy()
    stopped[30:] = stopped[30]
    assert judge(code, Trace(trace.sites, stopped, trace.axes, trace.facts, trace.statistics)) is None


def test_a_router_that_has_collapsed_in_a_run_is_named() -> None:
    statistics = {"load_excess": 3.0, "load_entropy": 0.0, "idle_experts": 0.75}
    facts = {"experts": 4, "choices": 1, "rows": 256}
    found = judge("MOE001", build(statistics, "router", facts))
    assert found is not None and "3 of its experts got no token" in found.cause


def route(excess: Any) -> Finding | None:
    """MOE001 on the load of one of four experts at each look."""
    facts = {"experts": 4, "choices": 1, "rows": 256}
    return judge("MOE001", build({"load_excess": np.asarray(excess), "idle_experts": 0.0}, "router", facts))


def test_a_router_that_was_balanced_and_stays_alone_is_named_before_its_experts_are_dead() -> None:
    found = route([0.3] * 55 + [2.9] * 5)
    assert found is not None and "it was balanced at first" in found.cause
    assert route([0.3] * 56 + [2.9] * 4) is None
    assert route([0.3] * 50 + [2.9, 0.5] * 5) is None  # batches of one domain in turn
    assert route([0.3] * 50 + [2.9] * 4 + [0.5] + [2.9] * 5) is not None


def test_a_router_that_was_alone_from_the_start_may_leave_that_state() -> None:
    assert route([2.9] * 60) is None


def test_a_load_is_foretold_by_the_drift_of_its_logits() -> None:
    share = 1 / (1 + np.exp(-np.linspace(-1, 2, 60)))
    found = route(3 * share)
    assert found is not None and "it will be alone at this rate in about 20 steps" in found.cause
    assert route(3 * share[::-1]) is None


def test_a_router_that_chooses_all_its_experts_has_no_load() -> None:
    facts = {"experts": 2, "choices": 2, "rows": 256}
    with pytest.raises(NotApplicable, match="balance"):
        judge("MOE001", build({"load_excess": 0.0, "idle_experts": 0.0}, "router", facts))


def test_outputs_that_are_no_logits_are_not_judged() -> None:
    trace = TRACES["OUT003"]
    facts: Any = {**trace.facts, "start": [250.0] * 5}
    with pytest.raises(Exception, match="logits for sure"):
        judge("OUT003", Trace(trace.sites, trace.values, trace.axes, facts, trace.statistics))
