"""NRM001 on depths written by hand: growth under batch statistics without skips."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Axis, Site, Trace
from unvanish.rules import rule

NAMES = ("backward_log", "weight_log", "slope_sq", "saturated")


def _build_chain(gain: float, *, batch: bool = True, skip: bool = False) -> Trace:
    """Thirteen rows of a layer and a normalisation; each multiplies the gradient by exp(gain)."""
    own: Any = {
        "cut": True, "row_layers": 1, "row_norm": True, "row_batch_norm": batch, "row_residual": skip,
        "batch_statistics": batch, "shape": (8, 4096),
    }  # fmt: skip
    sites = tuple(Site.node(f"block{i}", "norm", 0, own) for i in range(13))
    values = np.full((1, 13, len(NAMES)), np.nan)
    values[0, :, 0] = gain * np.arange(13)
    return Trace(sites, values, (Axis("input", "depth", tuple(range(13))),), statistics=NAMES)


def _judge(trace: Trace, **settings: float) -> list[Finding]:
    return rule("NRM001").check(trace, **settings)


@pytest.mark.parametrize(
    ("total", "severity"), [(5.4, None), (5.6, "warning"), (5.9, "warning"), (6.1, "error")]
)
def test_normalised_layers_may_grow_by_five_and_a_half_nats(total: float, severity: str | None) -> None:
    found = _judge(_build_chain(total / 11))  # twelve layers have one below them
    assert [f.severity for f in found] == ([severity] if severity else [])
    for finding in found:
        assert finding.direction == "exploding" and finding.weight == pytest.approx(total)
        factor = math.exp(total / 11)
        assert finding.evidence[0].value == pytest.approx(total)
        assert finding.evidence[2].value == pytest.approx(factor)
        assert f"multiplies it by {factor:.2f} a layer" in finding.cause


def test_the_sites_and_the_remedies_name_the_blocks() -> None:
    (found,) = _judge(_build_chain(1.0))
    assert found.sites and set(found.sites) <= {f"block{i}" for i in range(13)}
    assert [r.cure for r in found.remedies] == ["add-skips", "swap-normalisation", "reinitialise"]
    assert all(r.targets == found.sites for r in found.remedies)
    assert found.remedies[1].parameters == {"to": "layer_norm"}


def test_a_skip_a_loss_and_a_limit_silence_it() -> None:
    assert _judge(_build_chain(1.0, skip=True)) == []
    assert _judge(_build_chain(-1.0)) == []
    assert _judge(_build_chain(1.0), limit=12.0) == []


def test_without_batch_statistics_there_is_nothing_to_judge() -> None:
    with pytest.raises(NotApplicable, match="statistics of the batch"):
        _judge(_build_chain(1.0, batch=False))
