"""Who bears a loss or a growth over the depth, decided on accounts written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unvanish.core.accounts import Entry
from unvanish.core.causes import Blame, DepthProfile, blame, is_steep
from unvanish.core.depth import Depth
from unvanish.core.facts import NodeFacts
from unvanish.core.limits import CONTRACTING, NORMALISED, RATIO, RELU
from unvanish.core.trace import STATISTICS, Axis, Site, Trace

LAYERS = 10


def case(
    shares: list[dict[str, float]], facts: NodeFacts | list[NodeFacts] | None = None, **changes: Any
) -> Blame:
    """The blame for rows with these shares, one site each, with the same facts or one for each row."""
    each = facts if isinstance(facts, list) else [facts or {}] * len(shares)
    sites = tuple(Site.node(f"row{i}", "linear", 0, each[i]) for i in range(len(shares)))
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


# -- boundaries


def test_the_limit_itself_is_within_it():
    assert case([{"weights": -RATIO / 2}] * 2, limit=RATIO) == Blame()
    facts: NodeFacts = {"row_layers": 1, "row_norm": True}
    assert case([{"weights": -0.6}] * LAYERS, facts, log_ratio=-NORMALISED * RATIO) == Blame()


@pytest.mark.parametrize(("normalised", "cause"), [(5, ""), (4, "INI001")])
def test_layers_are_normalised_if_half_of_them_are(normalised: int, cause: str):
    rows = [{"weights": -0.5}] * LAYERS
    kinds: list[NodeFacts] = [{"row_layers": 1, "row_norm": k < normalised} for k in range(LAYERS)]
    assert case(rows, kinds).cause == cause
    assert case(rows, [{"row_layers": 0, "row_norm": k < 1} for k in range(LAYERS)]).cause == ""


@pytest.mark.parametrize(
    ("saturated", "slope", "weights", "cause"),
    [
        (-4.0, -3.9, -0.5, "ACT001"),
        (-3.9, -4.0, -0.5, "INI001"),
        (-4.0, -0.5, -3.9, "ACT001"),
        (-3.9, -0.5, -4.0, "INI001"),
        (-1.01, 0.0, 0.0, "ACT001"),
        (-0.99, 0.0, 0.0, ""),
    ],
)
def test_saturation_must_cost_more_than_either_and_more_than_a_nat(
    saturated: float, slope: float, weights: float, cause: str
):
    rows = [{"saturated": saturated}, {"slope": slope / 2}, {"slope": slope / 2}, {"weights": weights}]
    assert case([*rows, {"rest": -2.5}]).cause == cause


@pytest.mark.parametrize(
    ("slope", "other", "cause"),
    [
        (1.01 * CONTRACTING, -0.5, "ACT002"),
        (0.99 * CONTRACTING, -0.5, ""),
        (1.01 * CONTRACTING, -1.0, "ACT002"),
        (1.01 * CONTRACTING, -1.03, ""),
    ],
)
def test_contracting_slopes_have_a_mean_below_a_nat_and_half_of_the_loss(
    slope: float, other: float, cause: str
):
    assert case([{"slope": slope}, {"rest": other}] * LAYERS).cause == cause


def test_steepness_begins_at_seven_tenths():
    assert is_steep(Entry(0, 0.0, {"slope": 0.71 * CONTRACTING}))
    assert not is_steep(Entry(0, 0.0, {"slope": 0.69 * CONTRACTING}))
    assert not is_steep(Entry(0, 0.0))


def test_what_a_relu_costs_is_free_for_an_activation():
    cost = 1.4 * CONTRACTING
    for weights, cause in ((cost + RELU + 0.01, "ACT002"), (cost + RELU - 0.01, "INI001")):
        assert case([{"weights": weights}, {"slope": cost}] * LAYERS, log_ratio=-15.0).cause == cause


@pytest.mark.parametrize(("share", "cause"), [(0.11, "INI001"), (0.09, "")])
def test_weights_must_bear_a_tenth_of_the_loss(share: float, cause: str):
    assert case([{"weights": -share, "rest": share - 1}] * LAYERS).cause == cause
    assert case([{"normalisation": -share, "rest": share - 1}] * LAYERS).cause == ""


@pytest.mark.parametrize(("share", "cause"), [(0.51, ""), (0.49, "INI001")])
def test_residual_sums_that_bear_half_of_the_loss_leave_no_cause(share: float, cause: str):
    assert case([{"residual": -share, "weights": share - 1}] * LAYERS).cause == cause


@pytest.mark.parametrize(
    ("rows_with", "facts", "cause"),
    [
        (5, {"row_batch_norm": True}, "NRM001"),
        (4, {"row_batch_norm": True}, ""),
        (10, {"row_batch_norm": True, "row_residual": True}, "DEP002"),
        (6, {"row_residual": True}, "DEP002"),
        (5, {"row_residual": True}, ""),
        (6, {"row_residual": True, "row_norm": True}, ""),
        (6, {"row_residual": True, "stream_norm": True}, "NRM002"),
        (1, {"stream_norm": True}, "NRM002"),
    ],
)
def test_growth_needs_half_of_the_layers(rows_with: int, facts: NodeFacts, cause: str):
    kinds: list[NodeFacts] = [facts if k < rows_with else {} for k in range(LAYERS)]
    assert case([{"rest": 1.0}] * LAYERS, kinds).cause == cause


def test_a_stream_needs_a_norm_at_half_of_its_layers():
    for after, cause in ((5, "NRM002"), (4, "DEP002")):
        kinds: list[NodeFacts] = [{"row_residual": True, "stream_norm": k < after} for k in range(LAYERS)]
        assert case([{"residual": 1.0}] * LAYERS, kinds).cause == cause


def test_growth_of_normalised_branches_is_that_of_a_sum():
    rows = [{"residual": 0.51, "weights": 0.49}] * LAYERS
    facts: NodeFacts = {"row_residual": True, "row_norm": True}
    wide = {"log_ratio": 10.0, "limit": 3.0}
    assert case(rows, facts, **wide).cause == ""
    assert case([{"residual": 0.49, "weights": 0.51}] * LAYERS, facts, **wide).cause == "INI002"


@pytest.mark.parametrize(
    ("weights", "slope", "cause"),
    [(0.1, -0.5, "INI002"), (-0.1, 0.2, "INI002"), (-0.1, 0.05, ""), (0.0, 0.0, "")],
)
def test_large_weights_amplify_with_or_without_their_slopes(weights: float, slope: float, cause: str):
    assert case([{"weights": weights, "slope": slope, "rest": 1.0}] * LAYERS).cause == cause


def test_a_single_layer_must_stand_far_from_the_median():
    for far, cause in ((2.01, "INI002"), (1.99, "")):
        rows = [{"weights": 0.5}] * (LAYERS - 1) + [{"weights": 0.5 + far}]
        assert case(rows, log_ratio=0.0, endpoint=6.0).cause == cause
    two = [{"weights": 0.0}, {"weights": 5.0}]
    assert case(two, log_ratio=0.0, endpoint=5.0).culprits == (1,)
    assert case(two[1:], log_ratio=0.0, endpoint=5.0) == Blame()
    assert case([{"weights": 0.0}, {"weights": 5.0}], log_ratio=0.0, endpoint=3.0) == Blame()


def test_normalisations_that_shrink_count_with_the_weights():
    row = {"weights": -0.06, "normalisation": -0.06, "rest": -0.88}
    assert case([row] * LAYERS).cause == "INI001"
    assert case([{**row, "normalisation": 0.06}] * LAYERS).cause == ""
