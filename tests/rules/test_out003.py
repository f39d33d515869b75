"""OUT003 on losses written by hand: how large logits must be, how many, and how wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import out003_saturated_logits as out003
from unvanish.rules import rule

HUGE: dict[str, Any] = {"logit_max": 50.0, "logit_top": 20.0, "residual": 0.5}
NODES = (
    Site.node("head", "linear", 0, {"family": "layer", "order": 8}),
    Site.node("body", "linear", 0, {"family": "layer", "order": 2}),
    Site.node("relu", "relu", 0, {"family": "activation", "order": 9}),
)


def build_trace(
    *losses: dict[str, Any], nodes: tuple[Site, ...] = NODES, kind: str = "cross_entropy"
) -> Trace:
    outputs = tuple(Site.output(kind, 0, facts) for facts in losses)  # type: ignore[arg-type]
    sites = nodes + outputs
    return Trace(sites, np.full((1, len(sites), len(STATISTICS)), math.nan))


def test_huge_and_wrong_logits_are_reported_at_the_last_layer() -> None:
    (found,) = rule("OUT003").check(build_trace(HUGE))
    assert (found.severity, found.direction, found.sites) == ("warning", "none", ("head",))
    assert "reach 50" in found.cause and "50%" in found.cause
    assert [e.value for e in found.evidence] == [50.0, 20.0, 0.5]
    assert [e.limit for e in found.evidence] == ["< 30", "< 10", "< 0.05"]
    assert [e.site for e in found.evidence] == ["head", "head", "loss"]
    assert found.weight == pytest.approx(4 + math.log(50.0))  # the base of its tier, and nats
    shrink, norm, z_loss = found.remedies
    assert (shrink.cure, shrink.parameters) == ("shrink-output-layer", {"gain": 0.1})
    assert (norm.cure, norm.targets) == ("insert-normalisation", ("head",))
    assert (z_loss.safety, z_loss.parameters) == ("advice", {"weight": 1e-4})


@pytest.mark.parametrize(
    ("largest", "typical", "residual", "severity"),
    [
        (30.0, 20.0, 0.5, None),
        (30.1, 20.0, 0.5, "warning"),
        (90.0, 20.0, 0.5, "warning"),
        (90.1, 20.0, 0.5, "error"),
        (50.0, 10.0, 0.5, None),
        (50.0, 10.1, 0.5, "warning"),
        (50.0, 20.0, 0.05, None),
        (50.0, 20.0, 0.051, "warning"),
        (math.inf, 20.0, 0.5, None),
        (math.nan, 20.0, 0.5, None),
    ],
)
def test_it_fires_just_beyond_its_limits(
    largest: float, typical: float, residual: float, severity: str | None
) -> None:
    trace = build_trace({"logit_max": largest, "logit_top": typical, "residual": residual})
    assert [f.severity for f in out003.check(trace)] == ([severity] if severity else [])


@pytest.mark.parametrize("missing", list(HUGE))
def test_an_unknown_number_is_no_fault(missing: str) -> None:
    trace = build_trace({k: v for k, v in HUGE.items() if k != missing})
    assert list(out003.check(trace, limit=0.9, residual=0.05)) == []


def test_its_limits_can_be_set() -> None:
    assert not list(out003.check(build_trace(HUGE), limit=50.0))
    assert not list(out003.check(build_trace(HUGE), residual=0.5))
    (found,) = out003.check(build_trace(HUGE), limit=12.0, residual=0.1)
    assert found.severity == "error" and [e.limit for e in found.evidence] == ["< 12", "< 4", "< 0.1"]


def test_the_largest_of_several_is_reported() -> None:
    right = {**HUGE, "logit_max": 500.0, "residual": 0.0}
    (found,) = out003.check(
        build_trace(HUGE, {**HUGE, "logit_max": 70.0}, {**HUGE, "logit_max": 40.0}, right)
    )
    assert found.evidence[0].value == 70.0


def test_without_a_layer_the_loss_is_named() -> None:
    (found,) = out003.check(build_trace(HUGE, nodes=NODES[2:]))
    assert found.sites == ("loss",)


def test_losses_that_read_no_logits_are_not_judged() -> None:
    with pytest.raises(NotApplicable, match="no loss that reads logits"):
        out003.check(build_trace(HUGE, kind="mse_loss"))
    bce = build_trace(HUGE, kind="binary_cross_entropy_with_logits")
    assert len(list(out003.check(bce))) == 1
