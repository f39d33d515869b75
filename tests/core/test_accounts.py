"""Each row of an axis written by hand: which account its gain goes to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.accounts import Entry, enter
from unvanish.core.trace import STATISTICS, Axis, Site, Trace

NAMES = list(STATISTICS)
SLOPE = math.exp(-1.2)  # <phi'^2>: half of its logarithm, -0.6 nats, is the slope's part


def build_entry(
    gain: float, facts: dict[str, Any], inner: list[tuple[dict[str, Any], dict[str, float]]], **own: float
) -> Entry:
    """The entry of a row with these facts and numbers, and with these sites inside it."""
    rows = [({**facts, "cut": True, "segment": 0}, own), ({"cut": True, "segment": 1}, {})]
    rows += [({"cut": False, "segment": 0, **f}, n) for f, n in inner]
    rows += [({"cut": False, "segment": 1, "squashing": True}, {"weight_log": 9.0, "saturated": 1.0})]
    sites = tuple(Site.node(f"s{i}", "op", 0, f) for i, (f, _) in enumerate(rows))  # type: ignore[arg-type]
    values = np.full((1, len(sites), len(STATISTICS)), math.nan)
    for i, (_, numbers) in enumerate(rows):
        for name, number in numbers.items():
            values[0, i, NAMES.index(name)] = number
    trace = Trace(sites, values)
    log = [1.0, 1.0 + gain, *[math.nan] * (len(sites) - 2)]
    return enter(trace, Axis("input", "depth", (0, 1)), 0, log)


def test_a_layer_s_gain_is_its_weights_and_the_rest() -> None:
    found = build_entry(-2.0, {"simple": True, "row_layers": 1}, [], weight_log=-1.5, slope_sq=SLOPE)
    assert (found.site, found.gain) == (0, pytest.approx(-2.0)) and not found.bearers
    assert found.shares == pytest.approx({"weights": -1.5, "rest": -0.5})


@pytest.mark.parametrize(("saturated", "account"), [(0.5, "slope"), (0.51, "saturated"), (math.nan, "slope")])
def test_an_activation_s_gain_is_its_slope_and_the_rest(saturated: float, account: str) -> None:
    found = build_entry(-1.0, {"simple": True}, [], slope_sq=SLOPE, saturated=saturated)
    assert found.shares == pytest.approx({account: -0.6, "rest": -0.4})


def test_the_numbers_of_a_row_of_several_operations_are_not_its_own() -> None:
    assert build_entry(-1.0, {"row_residual": True}, [], weight_log=-1.5).shares == {"residual": -1.0}


@pytest.mark.parametrize("slope", [0.0, math.nan])
def test_an_operation_without_weights_or_a_slope_keeps_its_gain_whole(slope: float) -> None:
    assert build_entry(-1.0, {"simple": True}, [], slope_sq=slope).shares == {"slope": -1.0}


@pytest.mark.parametrize(
    ("facts", "account"),
    [
        ({"row_residual": True, "row_norm": True}, "residual"),
        ({"row_norm": True, "row_layers": 1}, "normalisation"),
        ({"row_layers": 1}, "rest"),
        ({"row_attention": True, "row_kinds": ("getitem",)}, "rest"),
        ({"row_recurrent": True, "row_kinds": ("mean",)}, "rest"),
        ({"row_kinds": ("avg_pool2d",)}, "resampling"),
        ({"row_kinds": ("add", "mean")}, "resampling"),
        ({"row_kinds": ("cat",)}, "rest"),
        ({"row_kinds": ("cat", "upsample_nearest2d")}, "resampling"),
        ({"row_kinds": ("mul", "exp")}, "slope"),
        ({}, "slope"),
    ],
)
def test_an_undivided_gain_goes_to_what_the_row_holds(facts: dict[str, Any], account: str) -> None:
    assert build_entry(-1.0, facts, []).shares == {account: -1.0}


LAYER_A: tuple[dict[str, Any], dict[str, float]] = ({}, {"weight_log": -1.0})
LAYER_B: tuple[dict[str, Any], dict[str, float]] = ({}, {"weight_log": -3.0})


def test_parallel_layers_bear_the_mean_of_their_weights() -> None:
    found = build_entry(-2.5, {"row_layers": 2}, [LAYER_A, ({}, {}), LAYER_B])
    assert found.shares == pytest.approx({"weights": -2.0, "rest": -0.5})
    assert found.bearers == {"weights": (2, 4)} and found.site == 0


@pytest.mark.parametrize(
    ("weight", "gain", "split"),
    [
        (-2.0, -2.1, True),
        (-2.0, -1.9, False),
        (-2.0, 1.0, False),
        (2.0, 2.1, True),
        (2.0, 1.9, False),
        (2.0, -3.0, False),
        (0.0, -1.0, False),
        (0.0, 1.0, False),
    ],
)
def test_a_row_that_changes_less_than_its_layers_has_a_path_around_them(
    weight: float, gain: float, split: bool
) -> None:
    found = build_entry(gain, {"row_layers": 1}, [({}, {"weight_log": weight})])
    assert set(found.shares) == ({"weights", "rest"} if split else {"rest"})
    assert sum(found.shares.values()) == pytest.approx(gain)


@pytest.mark.parametrize(
    ("flat", "account"), [([0.9, 0.2, 0.6], "saturated"), ([0.9, 0.5, 0.1], "slope"), ([0.1], "slope")]
)
def test_squashing_activations_bear_what_is_lost_beyond_the_weights(flat: list[float], account: str) -> None:
    """The median of their flat shares decides between the two accounts."""
    units = [({"squashing": True}, {"saturated": share}) for share in flat]
    found = build_entry(-5.0, {"row_layers": 2}, [LAYER_A, *units, LAYER_B])
    assert found.shares == pytest.approx({"weights": -2.0, account: -3.0})
    places = tuple(range(3, 3 + len(flat)))
    assert found.bearers == {"weights": (2, 3 + len(flat)), account: places}


@pytest.mark.parametrize(
    ("weight", "gain", "split"),
    [(-2.0, -2.01, True), (-2.0, -1.99, False), (2.0, -0.01, True), (2.0, 0.01, False), (2.0, 0.5, False)],
)
def test_squashing_activations_lose_something(weight: float, gain: float, split: bool) -> None:
    inner = [({}, {"weight_log": weight}), ({"squashing": True}, {"saturated": 0.0})]
    assert ("slope" in build_entry(gain, {"row_layers": 1}, inner).shares) == split


@pytest.mark.parametrize("facts", [{"row_layers": 1, "row_attention": True}, {"row_attention": True}])
def test_attention_is_not_split(facts: dict[str, Any]) -> None:
    assert build_entry(-5.0, facts, [LAYER_A]).shares == {"rest": -5.0}


def test_rows_without_known_weights_and_normalised_rows_are_not_split() -> None:
    assert build_entry(-5.0, {"row_layers": 1}, [({}, {})]).shares == {"rest": -5.0}
    assert build_entry(-5.0, {"row_layers": 1, "row_norm": True}, [LAYER_A]).shares == {"normalisation": -5.0}
    simple = build_entry(-5.0, {"simple": True, "row_layers": 1}, [LAYER_A])
    assert simple.shares == pytest.approx({"weights": -1.0, "rest": -4.0})


def test_a_gradient_that_never_arrives_is_not_lost_here() -> None:
    trace = Trace((Site("a", "op"), Site("b", "op")), np.full((1, 2, len(STATISTICS)), math.nan))
    axis = Axis("input", "depth", (0, 1))
    assert enter(trace, axis, 0, [-math.inf, -math.inf]).gain == 0.0
    assert enter(trace, axis, 0, [-2.0, -math.inf]).gain == -math.inf


def build_weighed(spread: float, gain: float, kinds: tuple[str, ...] = ("mul", "linear", "tanh")) -> Entry:
    """A row that weighs, with a gate's layers inside, below a row that sums up; gains in nats."""
    rows: list[tuple[dict[str, Any], dict[str, float]]] = [
        ({"cut": True, "segment": 0, "row_kinds": ("sum",)}, {}),
        ({"cut": True, "segment": 1, "row_kinds": kinds, "row_layers": 2}, {}),
        ({"cut": True, "segment": 2}, {}),
        ({"cut": False, "segment": 1}, {"weight_log": -0.5}),
        ({"cut": False, "segment": 1, "squashing": True}, {"slope_sq": SLOPE}),
    ]
    sites = tuple(Site.node(f"s{i}", "op", 0, f) for i, (f, _) in enumerate(rows))  # type: ignore[arg-type]
    values = np.full((1, len(sites), len(STATISTICS)), math.nan)
    for i, (_, numbers) in enumerate(rows):
        for name, number in numbers.items():
            values[0, i, NAMES.index(name)] = number
    log = [1.0, 1.0 + spread, 1.0 + spread + gain, math.nan, math.nan]
    return enter(Trace(sites, values), Axis("input", "depth", (0, 1, 2)), 1, log)


@pytest.mark.parametrize(
    ("spread", "gain", "averaged", "weights", "slope"),
    [
        (1.5, -3.0, -3.0, 0.0, 0.0),  # weights of 1 / 20 over 20 places: nothing else is lost
        (1.5, -3.8, -3.0, -0.5, -0.3),  # and the gate's layers
        (1.5, -6.0, -4.9, -0.5, -0.6),  # what is lost beyond weights and slopes
        (1.5, 1.0, 0.0, 0.0, 0.0),
        (0.0, -2.0, -0.9, -0.5, -0.6),
    ],
)
def test_the_weights_of_an_average_are_set_apart_before_a_gate_is_blamed(
    spread: float, gain: float, averaged: float, weights: float, slope: float
) -> None:
    found = build_weighed(spread, gain)
    assert found.gain == pytest.approx(gain)
    assert found.shares.get("resampling", 0.0) == pytest.approx(averaged)
    assert found.shares.get("weights", 0.0) == pytest.approx(weights)
    assert found.shares.get("slope", 0.0) == pytest.approx(slope)
    assert sum(found.shares.values()) == pytest.approx(gain)
