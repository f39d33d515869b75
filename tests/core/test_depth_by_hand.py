"""The reading of depth axes written by hand: which layers count, their slope, the limits of a width."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from unvanish.core import depth
from unvanish.core.trace import STATISTICS, Axis, Site, Trace

NAMES = list(STATISTICS)
LAYER: dict[str, Any] = {"row_layers": 1, "shape": (8, 1000)}


def build_trace(rows: list[tuple[dict[str, Any], float]], **columns: list[float]) -> Trace:
    """An axis with these facts and these ln ||gradient||, from the loss to the input."""
    sites = tuple(Site.node(f"s{i}", "op", 0, facts) for i, (facts, _) in enumerate(rows))  # type: ignore[arg-type]
    values = np.full((1, len(sites), len(STATISTICS)), math.nan)
    values[0, :, NAMES.index("backward_log")] = [log for _, log in rows]
    for name, column in columns.items():
        values[0, :, NAMES.index(name)] = column
    return Trace(sites, values, (Axis("input", "depth", tuple(range(len(sites)))),))


def build_chain(logs: list[float], facts: dict[str, Any] = LAYER) -> Trace:
    return build_trace([*((facts, log) for log in logs), ({}, logs[-1])])


def read(trace: Trace, **settings: float) -> depth.Depth:
    found = depth.read(trace, **settings)
    assert found is not None
    return found


def test_the_ratio_is_the_slope_times_the_layers_it_crosses() -> None:
    found = read(build_chain([0.0, -0.5, -1.0, -1.5, -2.0]))
    assert found.layers == (0, 1, 2, 3, 4) and found.steps == 4
    assert found.log_ratio == pytest.approx(-2.0) and found.endpoint == pytest.approx(-2.0)
    assert len(found.entries) == 4 and found.rest == pytest.approx(-2.0)
    bent = read(build_chain([0.0, -0.5, -1.0, -1.5, -9.0]))
    assert bent.endpoint == pytest.approx(-9.0) and bent.log_ratio == pytest.approx(-2.0, abs=0.01)


@pytest.mark.parametrize(
    "values", [[0.0, 3.0], [1.0, 0.0, 5.0], [0.0, 1.0, 4.0, 9.0], [3.0, -2.0, 7.0, 1.0, 1.0]]
)
def test_theil_sen_is_the_median_of_all_slopes(values: list[float]) -> None:
    slopes = [(values[j] - values[i]) / (j - i) for i, j in combinations(range(len(values)), 2)]
    assert depth.theil_sen(values) == pytest.approx(float(np.median(slopes)))


def test_theil_sen_of_fewer_than_two_points_is_zero() -> None:
    assert depth.theil_sen([]) == depth.theil_sen([7.0]) == 0.0


def test_theil_sen_of_many_points_takes_400_of_them() -> None:
    values = np.zeros(1597)  # every fourth of them is a point that is compared
    values[1::4] = 1e9
    values[::4] = 0.5 * np.arange(0, 1597, 4)
    assert depth.theil_sen(values) == pytest.approx(0.5)
    four_hundred = np.random.default_rng(0).normal(size=400)
    i, j = np.triu_indices(400, 1)
    expected = np.median((four_hundred[j] - four_hundred[i]) / (j - i))
    assert depth.theil_sen(four_hundred) == pytest.approx(float(expected))


def test_the_output_layer_stays_out() -> None:
    rows = [({**LAYER, "simple": True}, 5.0), (LAYER, 0.0), (LAYER, -1.0), ({}, -1.0)]
    assert read(build_trace(rows)).layers == (1, 2)
    rows[0] = ({**LAYER, "simple": False}, 5.0)
    assert read(build_trace(rows)).layers == (0, 1, 2)


def test_rows_without_layers_are_crossed_and_recurrent_ones_count() -> None:
    rows = [(LAYER, 0.0), ({}, -1.0), ({"row_recurrent": True}, -1.5), (LAYER, -2.0), (LAYER, -3.0)]
    found = read(build_trace(rows))
    assert found.layers == (0, 2, 3)  # the last cut has no row below it
    assert [e.site for e in found.entries] == [0, 1, 2]


def test_frozen_layers_at_the_input_stay_out() -> None:
    frozen = {**LAYER, "row_trainable": False}
    rows = [(LAYER, 0.0), (frozen, -0.5), (LAYER, -1.0), (frozen, -8.0), (frozen, -9.0), ({}, -9.0)]
    assert read(build_trace(rows)).layers == (0, 1, 2)
    recurrent = {"row_recurrent": True, "row_trainable": False}
    assert read(build_trace([(LAYER, 0.0), (recurrent, -1.0), ({}, -1.0)])).layers == (0, 1)


def test_fewer_than_two_layers_with_a_gradient_are_no_depth() -> None:
    assert depth.read(build_chain([0.0])) is None
    assert depth.read(build_chain([0.0, -math.inf])) is None
    assert depth.read(build_trace([({**LAYER, "row_trainable": False}, 0.0)] * 4)) is None
    assert depth.read(Trace((), np.zeros((1, 0, len(STATISTICS))))) is None
    assert read(build_chain([0.0, -1.0])).layers == (0, 1)
    assert read(build_chain([0.0, -math.inf, -1.0])).layers == (0, 2)


@pytest.mark.parametrize(
    ("shape", "units"),
    [
        ((8, 4), 4),
        ((8, 7, 4), 4),
        ((8, 4, 2, 2), 16),
        ((8, 4, 5, 5), 36),
        ((8, 2, 1, 2, 3), 12),
        ((4,), 4),
        ((8, 0), 1),
        (None, 64),
    ],
)
def test_the_noise_is_that_of_the_width(shape: tuple[int, ...] | None, units: int) -> None:
    """1.5 sqrt(5 sum 1/n), for images with up to nine positions to each channel."""
    found = read(build_chain([0.0] * 20, {"row_layers": 1, "shape": shape}))
    noise = 1.5 * math.sqrt(5 * 20 / units)
    assert found.noise == pytest.approx(noise)
    assert found.limit == pytest.approx(max(3.0, noise))
    assert found.critical == pytest.approx(2 * max(3.0, noise))


def test_a_lower_limit_moves_the_warning_and_not_the_error() -> None:
    found = read(build_chain([0.0, -1.0]), limit=1.0)
    assert found.limit == 1.0 and found.critical == pytest.approx(6.0)
    assert read(build_chain([0.0, -1.0]), limit=5.0).critical == pytest.approx(10.0)


def test_what_a_pooling_does_to_the_norm_is_left_out() -> None:
    pool = {"row_kinds": ("max_pool2d",)}
    found = read(build_trace([(LAYER, 0.0), (pool, -0.5), (LAYER, -7.5), (LAYER, -8.0), ({}, -8.0)]))
    assert found.resampling == pytest.approx(-7.0)
    np.testing.assert_allclose(found.log_d, [0.0, -0.5, -1.0])
    assert found.endpoint == pytest.approx(-1.0)


def test_the_accounts_are_summed_over_the_rows() -> None:
    simple = {"simple": True, "shape": (8, 1000)}
    rows = [(LAYER, 9.0), *[({**LAYER, **simple}, -float(k)) for k in range(4)], ({}, -3.0)]
    weight = [math.nan, -0.25, -0.75, -1.0, -4.0, math.nan]
    found = read(build_trace(rows[1:], weight_log=weight[1:]))
    assert found.layers == (1, 2, 3)  # the first one is the output layer
    assert found.weights == pytest.approx(-1.75) and found.rest == pytest.approx(-0.25)


@pytest.mark.parametrize(
    ("ratio", "severity", "direction"),
    [
        (3.0, "", "none"),
        (3.01, "warning", "exploding"),
        (-6.0, "warning", "vanishing"),
        (-6.01, "error", "vanishing"),
    ],
)
def test_a_reading_is_judged_just_beyond_its_limits(ratio: float, severity: str, direction: str) -> None:
    found = replace(read(build_chain([0.0, -1.0])), log_ratio=ratio)
    assert (found.severity, found.direction, found.ratio) == (severity, direction, ratio)
    judged = replace(found, pinched=True, endpoint=-7.0)
    assert (judged.severity, judged.direction, judged.ratio) == ("error", "vanishing", -7.0)


def test_a_reading_starts_without_a_cause() -> None:
    found = read(build_chain([0.0, -1.0]))
    assert (found.cause, found.culprits, found.pinched) == ("", (), False)
