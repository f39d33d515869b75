"""DEP002 on chains written by hand: residual blocks that multiply the gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.rules import rule


def _build_blocks(gains: list[float], residual: bool = True, **facts: Any) -> Trace:
    """Blocks from the loss to the input; each multiplies the gradient by its gain."""
    made: Any = {"cut": True, "row_layers": 1, "row_residual": residual, **facts}
    sites = [Site.node(f"b{k}", "add", 0, made) for k in range(len(gains))]
    sites.append(Site.node("x", "linear", 0, {"cut": True}))
    values = np.full((1, len(sites), len(STATISTICS)), np.nan)
    values[0, :, list(STATISTICS).index("backward_log")] = np.cumsum([0.0, *np.log(gains)])
    return Trace(tuple(sites), values, (Axis("x", "depth", tuple(range(len(sites)))),))


def test_each_block_is_named_with_what_it_multiplies() -> None:
    """Nine blocks, eight rows between their outputs: each doubles, 2^8 = 256 times in all."""
    (found,) = rule("DEP002").check(_build_blocks([2.0] * 9))
    assert found.severity == "warning" and found.direction == "exploding"
    assert found.weight == pytest.approx(8 * math.log(2.0))
    assert ": each of 8 residual blocks multiplies it by 2.00, nothing scales them" in found.cause
    assert set(found.sites) == {f"b{k}" for k in range(8)}
    growth, gain = found.evidence[2:]
    assert (growth.value, growth.unit) == (pytest.approx(math.log10(256.0)), "decades")
    assert gain.value == pytest.approx(2.0)


def test_branches_are_scaled_by_the_root_of_their_number() -> None:
    (found,) = rule("DEP002").check(_build_blocks([3.0] * 17))
    assert [r.cure for r in found.remedies] == ["scale-branches", "zero-init-branches", "pre-normalisation"]
    assert dict(found.remedies[0].parameters) == {"scale": pytest.approx(0.25)}
    assert found.severity == "error"


def test_the_block_that_grows_most_comes_first() -> None:
    (found,) = rule("DEP002").check(_build_blocks([1.5, 4.0, 1.5, 6.0, 1.5, 2.0, 2.0]))
    assert found.sites[:2] == ("b3", "b1") and found.evidence[3].site == "b3"


@pytest.mark.parametrize(("gain", "fires"), [(1.45, False), (1.46, True)])
def test_the_limit_is_three_nats(gain: float, fires: bool) -> None:
    """Eight rows: 8 ln 1.45 = 2.97 and 8 ln 1.46 = 3.03."""
    assert bool(rule("DEP002").check(_build_blocks([gain] * 9))) == fires
    assert rule("DEP002").check(_build_blocks([gain] * 9), limit=3.1) == []


@pytest.mark.parametrize(
    "trace",
    [
        _build_blocks([0.5] * 9),
        _build_blocks([2.0] * 9, residual=False),
        _build_blocks([2.0] * 9, row_norm=True),
    ],
)
def test_losses_plain_layers_and_normalised_blocks_are_not_its_business(trace: Trace) -> None:
    assert rule("DEP002").check(trace) == []


def test_one_block_is_no_depth() -> None:
    with pytest.raises(NotApplicable, match="fewer than two hidden layers"):
        rule("DEP002").check(_build_blocks([9.0]))
