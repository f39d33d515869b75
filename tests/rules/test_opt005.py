"""OPT005 on watched trainings written by hand: how many steps are clipped, and by how much."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Trace
from unvanish.rules import rule


def _judge(clipped: Any, before: Any = 6.0, after: Any = 2.0, **settings: float) -> Finding | None:
    """A run with these flags, and these norms before and after clipping."""
    count = len(clipped)
    with np.errstate(divide="ignore"):
        columns: Any = {
            "clipped": np.asarray(clipped, np.float64),
            "before_log": np.log(np.broadcast_to(before, count).astype(np.float64)),
            "norm_log": np.log(np.broadcast_to(after, count).astype(np.float64)),
        }
    facts: Any = {"history": columns}
    trace = Trace((), np.zeros((1, 0, 1)), facts=facts, statistics=("update_log",))
    found = rule("OPT005").check(trace, **settings)
    return found[0] if found else None


def test_the_finding_holds_the_share_and_the_norms() -> None:
    found = _judge([1] * 96 + [0] * 4)
    assert found is not None and found.severity == "note" and found.direction == "none"
    assert found.cause == "96% of the last 100 steps are clipped to 2; the norm before is 6"
    assert [e.value for e in found.evidence] == [pytest.approx(v) for v in (0.96, 6.0, 3.0)]
    assert [e.limit for e in found.evidence] == ["< 0.9", "", "< 10"]
    assert found.weight == 1.0
    assert [(r.cure, r.safety) for r in found.remedies] == [
        ("raise-clipping-limit", "advice"), ("zclip", "exact"),
    ]  # fmt: skip
    assert "to about 6" in found.remedies[0].why


@pytest.mark.parametrize(("clipped", "fires"), [(90, False), (91, True)])
def test_nine_tenths_of_the_steps_may_be_clipped(clipped: int, fires: bool) -> None:
    flags = [1] * clipped + [0] * (100 - clipped)
    assert (_judge(flags) is not None) == fires
    assert _judge(flags, limit=0.95) is None


@pytest.mark.parametrize(("factor", "severity"), [(9.9, "note"), (10.1, "warning")])
def test_a_norm_tenfold_above_the_limit_is_a_warning(factor: float, severity: str) -> None:
    found = _judge([1] * 100, before=0.5 * factor, after=0.5)
    assert found is not None and found.severity == severity
    lower = _judge([1] * 100, before=0.5 * factor, after=0.5, far=5.0)
    assert lower is not None and lower.severity == "warning"


def test_only_the_last_hundred_known_steps_count() -> None:
    assert _judge([0] * 50 + [1] * 100) is not None
    assert _judge([1] * 50 + [0] * 20 + [1] * 80) is None
    assert _judge([1] * 50 + [math.nan] * 20 + [1] * 50) is not None


def test_the_norms_are_medians_of_the_last_hundred_that_are_known_on_both_sides() -> None:
    before = np.array([60.0] * 110 + [6.0] * 90)  # of the last hundred, most are 6
    before[-30:], after = 0.0, np.full(200, 2.0)
    after[100:120] = 0.0  # their logs are not finite
    found = _judge([1] * 200, before, after)
    # left: steps 50 to 99 at 60, 120 to 169 at 6
    assert found is not None and found.evidence[2].value == pytest.approx(math.sqrt(30.0 * 3.0))
    assert found.evidence[1].value == pytest.approx(math.sqrt(60.0 * 6.0))


def test_a_hundred_steps_must_be_known() -> None:
    with pytest.raises(NotApplicable, match="fewer than 100 steps"):
        _judge([1] * 99 + [math.nan] * 5)


def test_the_norms_are_those_of_steps_that_were_clipped() -> None:
    before = np.array([0.3] * 60 + [6.0] * 96 + [0.3] * 4)  # few norms are known of the rest
    found = _judge([0] * 60 + [1] * 96 + [0] * 4, before, np.minimum(before, 2.0))
    assert found is not None and found.cause.endswith("are clipped to 2; the norm before is 6")
    known = np.where(np.arange(160) < 60, before, math.nan)  # of the clipped ones none
    assert _judge([0] * 60 + [1] * 100, known, np.minimum(known, 2.0)) is None
