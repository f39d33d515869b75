"""PRC002 on measurements written by hand: no loss scale gives finite gradients in float16."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import prc002_gradient_overflow as prc002
from unvanish.rules import rule

OVERFLOW = {"finite_in_float32": True, "nonfinite_native": True, "best_scale_log2": -3.0}


def build_trace(precision: dict[str, Any], *first: bool) -> Trace:
    sites = tuple(Site.node(f"n{k}", "mul", 0, {"nonfinite_first": f}) for k, f in enumerate(first))
    values = np.full((1, len(sites), len(STATISTICS)), math.nan)
    return Trace(sites, values, facts={"precision": precision})  # type: ignore[typeddict-item]


def test_the_first_infinity_is_named() -> None:
    (found,) = rule("PRC002").check(build_trace(OVERFLOW, False, True, True))
    assert (found.severity, found.direction, found.sites) == ("error", "exploding", ("n1",))
    assert found.cause.endswith("; the first infinity is made in n1")
    tried, scale = found.evidence
    assert (tried.value, scale.value, scale.unit, scale.site) == (6, -3.0, "log2", "n1")
    keep, bfloat16 = found.remedies
    assert (keep.cure, keep.safety, keep.targets) == ("keep-float32", "exact", ("n1",))
    assert (bfloat16.cure, bfloat16.targets) == ("bfloat16", ())
    assert found.weight == 60  # the base of its tier


def test_without_a_place_it_is_reported_all_the_same() -> None:
    precision = {k: v for k, v in OVERFLOW.items() if k != "best_scale_log2"}
    (found,) = prc002.check(build_trace(precision, False))
    assert found.sites == () and found.cause.endswith("in float32 they are finite")
    assert isinstance(found.evidence[1].value, float) and math.isnan(found.evidence[1].value)


@pytest.mark.parametrize(
    "changes", [{"finite_in_float32": False}, {"nonfinite_native": False}, {"nonfinite_native": None}]
)
def test_it_is_silent_if_float32_fails_too_or_a_scale_works(changes: dict[str, Any]) -> None:
    assert list(prc002.check(build_trace({**OVERFLOW, **changes}, True))) == []


def test_it_needs_float16_and_a_run_in_float32() -> None:
    with pytest.raises(NotApplicable, match="nothing runs in float16"):
        prc002.check(build_trace({}))
    with pytest.raises(NotApplicable, match="could not be run in float32"):
        prc002.check(build_trace({"nonfinite_native": True}))


@pytest.mark.parametrize("weight", [1.0, 1e7])
def test_a_loss_that_is_too_large_for_float16_is_named(weight: float) -> None:
    """A smaller loss would do, but nobody makes it smaller: a GradScaler refuses gradients in float16."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).half()
    batch = torch.randn(32, 16).half(), torch.randn(32, 4)

    def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return weight * (out.float() - y).square().mean()

    found = unvanish.check(net, batch, loss).findings
    assert [f.code for f in found][:1] == (["PRC002"] if weight > 1 else [])
    assert all("too large for float16" in f.cause for f in found)
