"""PRC001 on measurements written by hand: a batch at its best loss scale, and the looks of a watched run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import prc001_gradient_underflow as prc001
from unvanish.rules import rule

NAMES = list(STATISTICS)


def build_batch(precision: dict[str, Any], flushed: tuple[float, ...] = ()) -> Trace:
    """A batch in float16 whose parameters p0, p1 ... lose these shares; an activation loses all."""
    sites = (
        Site.node("relu", "relu", 0, {}),
        *(Site.parameter(f"p{k}", "Linear", {}) for k in range(len(flushed))),
    )
    values = np.full((1, len(sites), len(STATISTICS)), math.nan)
    values[0, :, NAMES.index("flushed")] = [1.0, *flushed]
    return Trace(sites, values, facts={"precision": precision})  # type: ignore[typeddict-item]


def build_look(flushed: list[float], zero: list[float] | None = None) -> Trace:
    """A look at a watched run whose activations a0, a1 ... have these shares below the normal numbers."""
    sites = (
        *(Site.node(f"a{k}", "relu", 0, {}) for k in range(len(flushed))),
        Site.parameter("p", "Linear", {}),
    )
    values = np.full((1, len(sites), len(STATISTICS)), math.nan)
    values[0, :, NAMES.index("flushed")] = [*flushed, 1.0]
    values[0, : len(flushed), NAMES.index("backward_zero")] = zero or [0.0] * len(flushed)
    return Trace(sites, values, facts={"live": True})


def test_flushed_gradients_are_reported_with_the_worst_parameters() -> None:
    trace = build_batch({"flushed": 0.05, "best_scale_log2": 15.0}, (0.01, 0.2, math.nan, 0.011, 0.5, 0.3))
    (found,) = rule("PRC001").check(trace)
    assert (found.severity, found.direction) == ("warning", "vanishing")
    assert found.sites == ("p4", "p5", "p1", "p3")  # the worst first, none within the limit
    assert "5%" in found.cause and "2^15" in found.cause
    share, scale, *worst = found.evidence
    assert (share.value, share.limit, scale.value, scale.unit) == (0.05, "< 0.01", 15.0, "log2")
    assert [(e.site, e.value) for e in worst] == [("p4", 0.5), ("p5", 0.3), ("p1", 0.2)]
    assert found.weight == pytest.approx(6 + 10 * 0.05)
    assert [r.safety for r in found.remedies] == ["retrain", "advice", "exact"]
    assert [r.targets for r in found.remedies] == [(), found.sites, found.sites]


@pytest.mark.parametrize(
    ("share", "severity"), [(0.01, None), (0.0101, "warning"), (0.1, "warning"), (0.101, "error")]
)
def test_a_batch_fires_just_beyond_its_limits(share: float, severity: str | None) -> None:
    found = list(prc001.check(build_batch({"flushed": share, "best_scale_log2": 0.0})))
    assert [f.severity for f in found] == ([severity] if severity else [])


def test_its_limit_can_be_set() -> None:
    trace = build_batch({"flushed": 0.05, "best_scale_log2": 0.0}, (0.04,))
    assert not list(prc001.check(trace, limit=0.05))
    (found,) = prc001.check(trace, limit=0.002)
    assert found.severity == "error" and found.evidence[0].limit == "< 0.002" and found.sites == ("p0",)


def test_where_no_scale_is_finite_another_rule_speaks() -> None:
    precision = {"flushed": 0.5, "best_scale_log2": 0.0, "nonfinite_native": True}
    assert list(prc001.check(build_batch(precision))) == []
    assert list(prc001.check(build_batch({"flushed": math.nan, "best_scale_log2": 0.0}))) == []


def test_it_needs_float16_and_a_run_in_float32() -> None:
    with pytest.raises(NotApplicable, match="nothing runs in float16"):
        prc001.check(build_batch({}))
    with pytest.raises(NotApplicable, match="could not be run in float32"):
        prc001.check(build_batch({"dtype": "float16"}))
    with pytest.raises(NotApplicable, match="nothing runs in float16"):
        prc001.check(build_look([math.nan, math.nan]))


def test_a_look_names_the_activations_worst_first() -> None:
    (found,) = rule("PRC001").check(build_look([0.6, 0.9, 0.2, math.nan, 0.51]))
    assert (found.severity, found.direction, found.sites) == ("warning", "vanishing", ("a1", "a0", "a4"))
    assert found.cause == "90% of the gradient at a1 is below float16's normal numbers"
    below, affected, gone = found.evidence
    assert (below.value, below.limit, below.site) == (0.9, "< 0.5", "a1")
    assert (affected.value, affected.unit, gone.value) == (3, "of 4", 0)
    assert found.weight == pytest.approx(6 + 10 * 0.9)
    assert [r.safety for r in found.remedies] == ["exact", "retrain"]


def test_a_look_at_a_gradient_that_is_all_zero_is_an_error() -> None:
    (found,) = prc001.check(build_look([0.9, 0.8, 0.1], [0.999, 1.0, 1.0]))
    assert found.severity == "error" and found.cause == "the gradient at a1 is all zero in float16"
    assert found.evidence[2].value == 1  # a2 is within the limit


def test_a_look_within_the_limit_is_silent() -> None:
    assert list(prc001.check(build_look([0.5, 0.0]))) == []
    assert len(list(prc001.check(build_look([0.501, 0.0])))) == 1
    assert list(prc001.check(build_look([0.501, 0.0]), limit=0.02)) == []


def test_it_can_judge_a_watched_run() -> None:
    assert rule("PRC001").live
