"""OUT001 on losses written by hand: how flat and how wrong a squashed output must be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import out001_saturated_output as out001
from unvanish.rules import rule

WRONG: dict[str, Any] = {"activation": "sigmoid", "output_slope": 0.05, "residual": 0.5, "site": "net.3"}


def build_trace(*losses: dict[str, Any], kind: str = "mse_loss") -> Trace:
    sites = tuple(Site.output(kind, k, facts) for k, facts in enumerate(losses))  # type: ignore[arg-type]
    return Trace(sites, np.full((1, len(sites), len(STATISTICS)), math.nan))


def test_a_flat_and_wrong_output_is_named_with_its_numbers() -> None:
    (found,) = rule("OUT001").check(build_trace(WRONG))
    assert (found.severity, found.direction, found.sites) == ("warning", "vanishing", ("net.3",))
    assert "sigmoid" in found.cause and "5.0e-02" in found.cause and "0.50" in found.cause
    slope, off = found.evidence
    assert (slope.value, slope.limit, slope.site) == (0.05, "> 0.1", "net.3")
    assert (off.value, off.limit, off.unit, off.site) == (0.5, "< 0.2", "of the range", "loss")
    assert found.weight == pytest.approx(9 - math.log(0.05))  # the base of its tier, and nats of slope
    assert [r.cure for r in found.remedies] == ["use-loss-with-logits", "shrink-output-layer"]
    assert all(r.targets == ("net.3",) for r in found.remedies)


@pytest.mark.parametrize(
    ("slope", "residual", "severity"),
    [
        (0.1, 0.5, None),
        (0.099, 0.5, "warning"),
        (0.02, 0.5, "warning"),
        (0.0199, 0.5, "error"),
        (0.05, 0.2, None),
        (0.05, 0.201, "warning"),
    ],
)
def test_it_fires_just_beyond_its_limits(slope: float, residual: float, severity: str | None) -> None:
    found = list(out001.check(build_trace({**WRONG, "output_slope": slope, "residual": residual})))
    assert [f.severity for f in found] == ([severity] if severity else [])


def test_its_limits_can_be_set() -> None:
    trace = build_trace(WRONG)
    assert not list(out001.check(trace, limit=0.05)) and not list(out001.check(trace, residual=0.5))
    (found,) = out001.check(trace, limit=0.5, residual=0.1)
    assert found.severity == "error" and [e.limit for e in found.evidence] == ["> 0.5", "< 0.1"]


def test_the_flattest_of_the_wrong_outputs_is_reported() -> None:
    right = {**WRONG, "output_slope": 1e-6, "residual": 0.0, "site": "right"}
    worse = {**WRONG, "output_slope": 0.03, "site": "worse", "activation": "softmax"}
    (found,) = out001.check(build_trace(right, WRONG, worse))
    assert found.sites == ("worse",)
    assert found.remedies[0].parameters == {"loss": "cross-entropy"}
    (other,) = out001.check(build_trace(WRONG))
    assert other.remedies[0].parameters == {"loss": "binary cross-entropy with logits"}


def test_a_slope_of_zero_has_a_finite_size() -> None:
    (found,) = out001.check(build_trace({**WRONG, "output_slope": 0.0}))
    assert found.size == pytest.approx(12 * math.log(10.0))


def test_an_output_without_a_known_residual_is_not_called_wrong() -> None:
    facts = {k: v for k, v in WRONG.items() if k != "residual"}
    assert list(out001.check(build_trace(facts))) == []


def test_a_loss_of_unknown_place_is_named_loss() -> None:
    (found,) = out001.check(build_trace({k: v for k, v in WRONG.items() if k != "site"}))
    assert found.sites == ("loss",) and found.evidence[0].site == ""


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("cross_entropy", {}),
        ("mse_loss", {"activation": ""}),
        ("mse_loss", {"output_slope": math.nan}),
        ("mse_loss", {"output_slope": math.inf}),
    ],
)
def test_other_losses_and_outputs_are_not_judged(kind: str, changes: dict[str, Any]) -> None:
    with pytest.raises(NotApplicable, match="squared or absolute error"):
        out001.check(build_trace({**WRONG, **changes}, kind=kind))


@pytest.mark.parametrize("kind", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_every_error_of_differences_is_judged(kind: str) -> None:
    assert len(list(out001.check(build_trace(WRONG, kind=kind)))) == 1
