"""Who bears a loss or a growth over the depth, decided on accounts written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unvanish.core.accounts import Entry
from unvanish.core.causes import Blame, DepthProfile, blame
from unvanish.core.depth import Depth
from unvanish.core.facts import NodeFacts
from unvanish.core.limits import CONTRACTING, NORMALISED, RATIO, RELU
from unvanish.core.trace import STATISTICS, Axis, Site, Trace

LAYERS = 10


def case(shares: list[dict[str, float]], facts: NodeFacts | None = None, **changes: Any) -> Blame:
    """The blame for rows with these shares, one site each, all with the same facts."""
    sites = tuple(Site.node(f"row{i}", "linear", 0, facts or {}) for i in range(len(shares)))
    trace = Trace(sites, np.full((1, len(sites), len(STATISTICS)), np.nan))
    entries = tuple(Entry(i, sum(s.values()), s) for i, s in enumerate(shares))
    totals = {name: sum(s.get(name, 0.0) for s in shares) for name in set().union(*shares)}
    ratio = sum(e.gain for e in entries)
    layers = tuple(range(LAYERS + 1))
    axis = Axis("input", "depth", tuple(range(len(sites))))
    profile = DepthProfile(
        axis, layers, np.zeros(LAYERS + 1), ratio, ratio, 0.1, RATIO, 6.0, entries, **totals
    )
    return blame(trace, replace(profile, **changes))


def test_what_is_within_the_limit_has_no_cause():
    assert case([{"weights": -0.29}] * LAYERS) == Blame()
    assert case([{"weights": 0.29}] * LAYERS) == Blame()


def test_small_weights_are_named_worst_first():
    found = case([{"weights": -0.5 - 0.1 * i} for i in range(LAYERS)])
    assert found.cause == "INI001" and not found.pinched
    assert found.culprits == tuple(reversed(range(LAYERS)))


def test_large_weights_are_named_worst_first():
    found = case([{"weights": 0.5 + 0.1 * i} for i in range(LAYERS)])
    assert found.cause == "INI002" and found.culprits == tuple(reversed(range(LAYERS)))


def test_slopes_do_not_make_up_for_large_weights_that_explode_without_them():
    rows = [{"weights": 1.0}, {"slope": -RELU}] * LAYERS
    assert case(rows).cause == "INI002"


def test_saturation_is_the_cause_if_it_costs_more_than_slopes_and_weights():
    rows = [{"weights": -0.1}, {"saturated": -2.0}, {"slope": -0.2}] * LAYERS
    found = case(rows)
    assert found.cause == "ACT001"
    assert found.culprits == tuple(range(1, 3 * LAYERS, 3))


def test_contracting_activations_are_named_and_ordinary_ones_are_not():
    steep, ordinary = {"slope": 1.4 * CONTRACTING}, {"slope": -RELU}
    found = case([{"weights": RELU}, steep, ordinary] * LAYERS)
    assert found.cause == "ACT002" and found.culprits == tuple(range(1, 3 * LAYERS, 3))


def test_weights_are_the_cause_if_they_cost_more_than_the_activations():
    assert case([{"weights": -2.5}, {"slope": 1.4 * CONTRACTING}] * LAYERS).cause == "INI001"


@pytest.mark.parametrize("rows", [[{"rest": -1.0}], [{"residual": -1.0}, {"weights": -0.1}]])
def test_what_neither_weights_nor_slopes_bear_has_no_cause(rows: list[dict[str, float]]):
    assert case(rows * LAYERS).cause == ""


def test_normalised_layers_have_a_wider_limit():
    facts: NodeFacts = {"row_layers": 1, "row_norm": True}
    inside, outside = 0.99 * NORMALISED * RATIO / LAYERS, 1.01 * NORMALISED * RATIO / LAYERS
    assert case([{"weights": -inside}] * LAYERS, facts) == Blame()
    assert case([{"weights": -outside}] * LAYERS, facts).cause == "INI001"
    assert case([{"weights": -inside}] * LAYERS, {"row_layers": 1}).cause == "INI001"


@pytest.mark.parametrize(
    ("facts", "share", "cause"),
    [
        ({"row_batch_norm": True, "row_norm": True}, "normalisation", "NRM001"),
        ({"row_residual": True}, "residual", "DEP002"),
        ({"row_residual": True, "stream_norm": True}, "residual", "NRM002"),
        ({"row_residual": True, "row_norm": True}, "residual", ""),
        ({"stream_norm": True}, "rest", "NRM002"),
        ({}, "rest", ""),
    ],
)
def test_growth_is_told_apart_by_what_the_rows_hold(facts: NodeFacts, share: str, cause: str):
    found = case([{share: 1.0}] * LAYERS, facts)
    assert found.cause == cause
    assert bool(found.culprits) == (cause != "" and share != "rest")


@pytest.mark.parametrize(("sign", "cause"), [(-1, "INI001"), (1, "INI002")])
def test_a_single_layer_is_found_by_the_endpoints(sign: int, cause: str):
    rows = [{"weights": 0.0} for _ in range(LAYERS)]
    rows[3], rows[7] = {"weights": sign * 4.0}, {"weights": sign * 2.5}
    found = case(rows, log_ratio=0.0)
    assert found == Blame(cause, (3, 7), pinched=True)
    assert case(rows, log_ratio=0.0, endpoint=sign * 2.9) == Blame()
    assert case([{"weights": sign * 0.65}] * LAYERS, log_ratio=0.0) == Blame()


@pytest.mark.parametrize(
    ("ratio", "severity", "direction"),
    [
        (-2.0, "", "none"),
        (-4.0, "warning", "vanishing"),
        (-7.0, "error", "vanishing"),
        (7.0, "error", "exploding"),
    ],
)
def test_a_reading_is_as_bad_as_the_ratio_that_was_judged(ratio: float, severity: str, direction: str):
    axis = Axis("input", "depth", (0, 1))
    reading = Depth(axis, (0, 1), np.zeros(2), ratio, 0.0, 0.1, 3.0, 6.0, ())
    assert (reading.severity, reading.direction, reading.steps) == (severity, direction, 1)
    pinched = replace(reading, log_ratio=0.0, endpoint=ratio, pinched=True)
    assert (pinched.severity, pinched.ratio) == (severity, ratio)
