"""OPT008 on trials written by hand: what a first step and what a run must show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Trace
from unvanish.rules import rule


def tried(step: int, times: float, before: float = 1.0, after: float = 3.0) -> dict[str, Any]:
    multiple = 1 / times if times else math.inf
    return {
        "step": step, "rate": 0.1, "multiple": multiple, "loss_before": before, "loss_after": after,
        "forwards": 4,
    }  # fmt: skip


def judge(*trials: dict[str, Any], losses: list[float] | None = None, asked: bool = False) -> Finding | None:
    history: Any = {"step": np.arange(len(losses or [])), "loss": np.asarray(losses or [], np.float64)}
    facts: Any = {"critical": list(trials), "asked": asked, "history": {**history, "lr": history["loss"]}}
    found = rule("OPT008").check(Trace((), np.empty((0, 0, 1)), (), facts, ("forward_rms",)))
    return found[0] if found else None


@pytest.mark.parametrize("step", [-1, 0])
@pytest.mark.parametrize(
    ("times", "severity"), [(1.9, None), (2.1, "warning"), (9, "warning"), (11, "error")]
)
def test_a_first_step_may_be_twice_the_critical_one(step: int, times: float, severity: str | None) -> None:
    found = judge(tried(step, times), asked=step < 0)
    assert (found and found.severity) == (severity or ("note" if step < 0 else None))
    if found is not None and severity:
        assert f"the rate 0.1 is {times:.2g} times the critical one, {0.1 / times:.2g}" in found.cause
        assert found.evidence[3].value == pytest.approx(2 / (0.1 / times))


def test_what_check_was_not_asked_about_comes_last() -> None:
    found, asked = judge(tried(-1, 50.0)), judge(tried(-1, 50.0), asked=True)
    assert found is not None and asked is not None
    assert (found.severity, asked.severity) == ("note", "error") and found.weight < 2 < asked.weight


def test_a_loss_that_is_not_finite_after_the_step_is_an_error() -> None:
    found = judge(tried(0, 3.0, after=math.inf))
    assert found is not None and found.severity == "error"


def test_a_step_no_part_of_which_lowers_the_loss_is_one() -> None:
    found = judge({**tried(0, 1.0), "multiple": 0.0})
    assert found is not None and "no part of the step at the rate 0.1 lowers the loss" in found.cause


def test_a_later_step_alone_is_none() -> None:
    assert judge(tried(40, 50.0)) is None
    assert judge(tried(0, 3.0), tried(1, 0.5)) is None  # it has recovered


@pytest.mark.parametrize(
    ("first", "second", "fires"),
    [
        (tried(30, 1.2), tried(31, 3.0, 2.5, 9.0), True),
        (tried(30, 1.2), tried(31, 3.0, 1.9, 9.0), False),  # the loss has not doubled
        (tried(30, 0.9), tried(31, 3.0, 2.5, 9.0), False),
        (tried(30, 1.2, after=1.05), tried(31, 3.0, 2.5, 9.0), False),  # near a minimum
        (tried(30, 1.2), {**tried(31, 3.0, 2.5, 9.0), "multiple": math.nan}, False),  # momentum leads up
        (tried(30, 1.2), tried(31, 3.0, 2.5, math.inf), True),
    ],
)
def test_a_run_is_running_away_if_two_steps_overshoot_and_its_loss_has_doubled(
    first: dict[str, Any], second: dict[str, Any], fires: bool
) -> None:
    found = judge(first, second, losses=[1.0] * 30)
    assert (found is not None) == fires
    if found is not None:
        assert found.cause.startswith("at step 31 ")


def test_what_was_asked_for_is_said_in_a_note() -> None:
    found = judge(tried(-1, 0.25), asked=True)
    assert found is not None and found.severity == "note"
    assert found.cause == "the rate 0.1 is 0.25 times the critical one, 0.4"
    far = judge(tried(-1, 0.0), asked=True)
    assert far is not None and far.cause == "the rate 0.1 is far below the critical one"
    up = judge({**tried(-1, 1.0), "multiple": math.nan}, asked=True)
    assert up is not None and "does not lead down" in up.cause


def test_without_a_trial_it_does_not_apply() -> None:
    with pytest.raises(NotApplicable, match="no step was tried"):
        judge()
