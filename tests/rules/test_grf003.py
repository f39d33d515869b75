"""GRF003 on traces written by hand: the share of the numbers that is frozen."""

from __future__ import annotations

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import rule
from unvanish.rules._tiers import MEASURED


def _build_trace(*parameters: tuple[bool | None, int]) -> Trace:
    """Parameters as (trainable, numbers); None if it is unknown whether one learns."""
    sites = tuple(
        Site.parameter(f"p{k}", "", {"numel": n} if learns is None else {"numel": n, "trainable": learns})
        for k, (learns, n) in enumerate(parameters)
    )
    return Trace(sites, np.full((1, len(sites), len(STATISTICS)), np.nan))


def test_the_frozen_share_is_a_note() -> None:
    (found,) = rule("GRF003").check(_build_trace((True, 50), (False, 30), (False, 20), (None, 100)))
    assert found.severity == "note" and found.direction == "none" and found.remedies == ()
    assert found.cause == "25.0% of the model is frozen: 2 of 4 parameters have requires_grad=False"
    assert found.sites == ("p1", "p2")
    assert [e.value for e in found.evidence] == [0.25, 50]
    assert found.weight == MEASURED.weigh(0.0)


@pytest.mark.parametrize(("numbers", "noted"), [(9_999, True), (10_000, False)])
def test_a_constant_that_is_kept_as_a_parameter_is_not_noted(numbers: int, noted: bool) -> None:
    """One frozen number of 10 000 is at the limit, and of 10 001 below it."""
    assert bool(rule("GRF003").check(_build_trace((True, numbers), (False, 1)))) == noted


def test_a_single_number_is_the_whole_model() -> None:
    assert rule("GRF003").check(_build_trace((False, 1)))[0].evidence[0].value == 1.0


def test_the_limit_is_a_setting() -> None:
    trace = _build_trace((True, 50), (False, 50))
    assert rule("GRF003").check(trace, limit=0.51) == []
    assert len(rule("GRF003").check(trace, limit=0.5)) == 1


def test_a_model_that_learns_is_not_noted_for_any_limit() -> None:
    assert rule("GRF003").check(_build_trace((True, 5), (None, 5)), limit=0.0) == []


def test_frozen_parameters_without_numbers_are_not_noted() -> None:
    assert rule("GRF003").check(_build_trace((False, 0), (False, 0))) == []


def test_a_model_without_parameters_is_not_judged() -> None:
    with pytest.raises(NotApplicable, match="no parameters"):
        rule("GRF003").check(_build_trace())


def test_at_most_twelve_places_are_listed() -> None:
    (found,) = rule("GRF003").check(_build_trace(*[(False, 1)] * 20))
    assert len(found.sites) == 12 and found.cause.startswith("100.0% of the model is frozen: 20 of 20")
