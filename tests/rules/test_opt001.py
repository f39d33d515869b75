"""OPT001 on watched trainings written by hand: where a jump and a level begin, and what is reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Site, Trace
from unvanish.rules import rule

USUAL, LONG = 0.001, 0.01
RISE, EARLIER = "loss against before", "the same before"
STEPS_BASE = 5.0  # weight of a fault of the steps, of size 0


def _build(
    ratios: Sequence[Any],
    *,
    looks: Sequence[int] | None = None,
    loss: Sequence[float] | None = None,
    rate: Sequence[float] | None = None,
    past: Sequence[float] | None = None,
    first: int = 0,
) -> Trace:
    """A run with these update ratios at its looks, of one layer or of several; a look every fifth step."""
    table = np.asarray(ratios, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    looks = list(looks) if looks is not None else [first + 5 * k for k in range(len(table))]
    steps = np.arange(first, looks[-1] + 5 if loss is None else first + len(loss), dtype=np.float64)
    sites = tuple(Site.parameter(f"layer{i}", "Linear", {"dimensions": 2}) for i in range(table.shape[1]))
    with np.errstate(divide="ignore"):
        values = np.log(table)[:, :, None]
        gone = None if past is None else np.log(np.asarray(past, np.float64))[:, None]
    columns: Any = {
        "step": steps,
        "loss": np.ones(len(steps)) if loss is None else np.asarray(loss, np.float64),
        "lr": np.full(len(steps), 0.1) if rate is None else np.asarray(rate, np.float64),
    }
    facts: Any = {"live": True, "history": columns, "steps": looks, "past": gone}
    return Trace(sites, values, facts=facts, statistics=("update_log",))


def _judge_all(trace: Trace, **settings: float) -> Finding | None:
    found = rule("OPT001").check(trace, **settings)
    assert len(found) <= 1
    return found[0] if found else None


def _judge(trace: Trace, **settings: float) -> Finding | None:
    """What is more than a note."""
    found = _judge_all(trace, **settings)
    return None if found is None or found.severity == "note" else found


def _read(found: Finding, name: str) -> float:
    """A number of the evidence; NaN if it is not among it."""
    return next((float(e.value) for e in found.evidence if e.name == name), math.nan)


def _rise(step: int, by: float = 0.03) -> list[float]:
    """A loss that rises at a step by more than chance, and not clearly."""
    return [1.0] * step + [1.0 + by] * 15


def _level(losses: Sequence[float], ratio: float = 0.2) -> Finding | None:
    """Three looks, at steps 20, 25 and 30, with one ratio."""
    return _judge(_build([ratio] * 3, looks=[20, 25, 30], loss=losses))


def test_a_jump_is_reported_with_its_step_its_factor_and_its_numbers() -> None:
    found = _judge(_build([USUAL] * 10 + [LONG] * 3))
    assert found is not None and found.severity == "warning" and found.direction == "exploding"
    assert found.cause == "each step changes the weights by 1.0%, 10.0 times as much as just before step 50"
    now, before, rise, worst = found.evidence
    assert now.value == pytest.approx(LONG) and now.limit == "< 0.1"
    assert before.value == pytest.approx(USUAL)
    assert rise.value == 0.0 and rise.unit == "deviations"
    assert worst.site == "layer0" and worst.value == pytest.approx(LONG)
    assert found.weight == STEPS_BASE  # a hundredth is within the limit for a level
    assert [(r.cure, r.safety) for r in found.remedies] == [
        ("lower-learning-rate", "advice"), ("warm-up", "advice"), ("zclip", "exact"),
    ]  # fmt: skip


@pytest.mark.parametrize(("after", "fires"), [(2.9, False), (3.1, True)])
def test_a_jump_is_threefold(after: float, fires: bool) -> None:
    trace = _build([USUAL] * 10 + [after * USUAL] * 3)
    assert (_judge(trace) is not None) == fires
    assert _judge(trace, jump=after + 0.1) is None


def test_three_looks_must_agree() -> None:
    assert _judge(_build([USUAL] * 10 + [LONG] * 2)) is None
    assert _judge(_build([USUAL] * 10 + [LONG, USUAL, LONG])) is None


@pytest.mark.parametrize(("before", "fires"), [(4, False), (5, True)])
def test_five_looks_come_before_a_jump(before: int, fires: bool) -> None:
    trace = _build([USUAL] * before + [LONG] * 3, first=100)
    assert (_judge(trace) is not None) == fires


@pytest.mark.parametrize(("step", "fires"), [(19, False), (20, True)])
def test_a_jump_in_the_first_twenty_steps_does_not_count(step: int, fires: bool) -> None:
    looks = [0, 1, 2, 3, 4, step, step + 1, step + 2]
    assert (_judge(_build([USUAL] * 5 + [LONG] * 3, looks=looks)) is not None) == fires


@pytest.mark.parametrize(("looks", "fires"), [(30, True), (31, False)])
def test_a_jump_is_reported_for_thirty_looks(looks: int, fires: bool) -> None:
    assert (_judge(_build([USUAL] * 10 + [LONG] * looks)) is not None) == fires


@pytest.mark.parametrize(("between", "fires"), [(7, False), (8, True)])
def test_a_jump_is_compared_with_eight_looks(between: int, fires: bool) -> None:
    found = _judge(_build([0.005] + [USUAL] * between + [LONG] * 3, loss=_rise(5 * between + 5)))
    assert (found is not None) == fires
    if found:
        assert _read(found, EARLIER) == pytest.approx(USUAL)


@pytest.mark.parametrize(("earlier", "fires"), [(0.0064, True), (0.0069, False)])
def test_a_ratio_that_the_run_had_before_is_no_jump(earlier: float, fires: bool) -> None:
    assert (_judge(_build([earlier] + [USUAL] * 8 + [LONG] * 3, loss=_rise(45))) is not None) == fires
    assert (_judge(_build([USUAL] * 9 + [LONG] * 3, loss=_rise(45), past=[earlier])) is not None) == fires


@pytest.mark.parametrize(("earlier", "fires"), [(0.0032, True), (0.0035, False)])
def test_while_the_loss_does_not_rise_a_jump_is_threefold_over_the_whole_run(
    earlier: float, fires: bool
) -> None:
    assert (_judge(_build([earlier] + [USUAL] * 8 + [LONG] * 3)) is not None) == fires
    assert (_judge(_build([USUAL] * 9 + [LONG] * 3, past=[earlier])) is not None) == fires
    ratios = [0.02] + [USUAL] * 8 + [LONG] * 3
    rate = [0.1] * 42 + [0.1 * (LONG / earlier)] * 18
    assert (_judge(_build(ratios, rate=rate)) is not None) == fires


def test_the_past_is_the_median_of_its_known_layers() -> None:
    ratios = [[USUAL] * 3] * 9 + [[LONG] * 3] * 3
    assert _judge(_build(ratios, past=[USUAL, USUAL, 1.0])) is not None
    assert _judge(_build(ratios, past=[USUAL, 1.0, 1.0])) is None
    assert _judge(_build(ratios, past=[math.nan, 1.0, math.nan])) is None
    assert _judge(_build(ratios, past=[math.nan] * 3)) is not None


@pytest.mark.parametrize(("factor", "fires"), [(1.4, False), (1.6, True)])
def test_a_known_ratio_at_a_rate_the_run_never_had_is_a_jump(factor: float, fires: bool) -> None:
    ratios, steps = [0.02] + [USUAL] * 8 + [LONG] * 3, 60  # the jump is at step 45
    rate = [0.1] * 42 + [0.1 * factor] * (steps - 42)
    assert (_judge(_build(ratios, rate=rate, loss=_rise(45))) is not None) == fires


def test_a_restart_of_the_schedule_is_no_jump() -> None:
    ratios = [0.02] + [USUAL] * 8 + [LONG] * 3
    assert _judge(_build(ratios, rate=[0.2] * 10 + [0.01] * 35 + [0.2] * 15)) is None


def test_unknown_rates_count_as_none() -> None:
    ratios = [0.02] + [USUAL] * 8 + [LONG] * 3
    rate = [math.nan] * 42 + [0.1] * 18
    assert _judge(_build(ratios, rate=rate)) is not None
    assert _judge(_build(ratios, rate=[math.nan] * 60)) is None


def test_the_last_of_two_jumps_is_reported() -> None:
    found = _judge(_build([USUAL] * 6 + [LONG] * 6 + [0.08] * 3))
    assert found is not None and "just before step 60" in found.cause
    assert _read(found, EARLIER) == pytest.approx(LONG)  # the median of eight looks, six of them long


def test_a_growing_rate_is_told_with_both_values() -> None:
    rate = [0.3] * 20 + [0.1] * 30 + [0.16] * 15
    found = _judge(_build([USUAL] * 10 + [LONG] * 3, rate=rate))
    assert found is not None and found.cause.endswith("; the learning rate went from 0.1 to 0.16")
    rate[-1] = 0.14
    found = _judge(_build([USUAL] * 10 + [LONG] * 3, rate=rate))
    assert found is not None and "learning rate" not in found.cause


def test_the_rate_before_is_the_median_of_twenty_steps() -> None:
    rate = [0.3] * 38 + [0.1] * 12 + [0.3] * 15  # of steps 30 to 48, eight have the higher rate
    found = _judge(_build([USUAL] * 10 + [LONG] * 3, rate=rate))
    assert found is not None and "from 0.1 to 0.3" in found.cause
    found = _judge(_build([USUAL] * 10 + [LONG] * 3, rate=[0.3] * 41 + [0.1] * 9 + [0.3] * 15))
    assert found is not None and "learning rate" not in found.cause


@pytest.mark.parametrize(
    ("rise", "severity"), [(0.9, None), (1.1, "warning"), (2.9, "warning"), (3.1, "error")]
)
def test_a_level_is_a_fault_if_the_loss_is_higher(rise: float, severity: str | None) -> None:
    found = _level([1.0] * 20 + [1.0 + 0.02 * rise] * 15)  # the least deviation is 0.02 of the loss
    assert (found and found.severity) == severity
    if found:
        assert _read(found, RISE) == pytest.approx(rise)
        assert math.isnan(_read(found, EARLIER))
        assert found.cause.startswith("each step changes the weights by 20.0%")
        assert "times as much" not in found.cause
        assert found.cause.endswith(", and the loss rose") == (severity == "error")


def test_a_level_is_above_the_limit_at_each_of_three_looks() -> None:
    losses = [1.0] * 20 + [2.0] * 15
    for ratios, fires in (([0.11] * 3, True), ([0.2, 0.09, 0.2], False), ([0.09] * 3, False)):
        assert (_judge(_build(ratios, looks=[20, 25, 30], loss=losses)) is not None) == fires
    assert _judge(_build([0.11] * 3, looks=[20, 25, 30], loss=losses), limit=0.12) is None


@pytest.mark.parametrize("ratio", [0.2, 0.5, 100.0])
def test_the_weight_is_the_log_of_the_excess_at_most_five(ratio: float) -> None:
    found = _level([1.0] * 20 + [2.0] * 15, ratio)
    assert found is not None
    assert found.weight == pytest.approx(STEPS_BASE + min(5.0, math.log(ratio / 0.1)))


def test_a_level_is_judged_at_the_last_three_looks() -> None:
    ratios = [0.05] * 4 + [0.11] * 3  # looks at steps 0 to 30, the last three from 20 on
    found = _judge(_build(ratios, loss=[1.0] * 20 + [2.0] * 15))
    assert found is not None and found.evidence[0].value == pytest.approx(0.11)
    assert _read(found, EARLIER) == pytest.approx(0.05)
    assert _read(found, RISE) == pytest.approx(50.0)


@pytest.mark.parametrize(("known", "fires"), [(4, False), (5, True)])
def test_five_losses_must_be_known_before(known: int, fires: bool) -> None:
    losses = [math.nan] * (20 - known) + [1.0] * known + [2.0] * 15
    assert (_level(losses) is not None) == fires


@pytest.mark.parametrize(("known", "fires"), [(1, False), (2, True)])
def test_two_losses_must_be_known_after(known: int, fires: bool) -> None:
    assert (_level([1.0] * 20 + [math.nan] * (15 - known) + [2.0] * known) is not None) == fires


def test_the_loss_is_compared_with_as_many_steps_before_and_at_least_ten() -> None:
    short = _judge(_build([0.2] * 3, looks=[40, 42, 44], loss=[3.0] * 31 + [1.0] * 9 + [1.1] * 5))
    assert short is not None and _read(short, RISE) == pytest.approx(5.0)  # ten before, nine of them 1
    long = _judge(_build([0.2] * 3, looks=[40, 50, 59], loss=[1.0] * 25 + [3.0] * 15 + [3.3] * 20))
    assert long is not None and _read(long, RISE) == pytest.approx(5.0)
    assert _judge(_build([0.2] * 3, looks=[40, 50, 59], loss=[1.0] * 20 + [5.0] * 20 + [3.3] * 20)) is None


def test_the_deviation_is_that_of_the_losses_before() -> None:
    before = [1.0, 1.0, *[0.9, 1.0, 1.1] * 6]  # 0.1 about the median, times 1.4826
    found = _level([*before, *[1.0 + 2 * 0.14826] * 15])
    assert found is not None and _read(found, RISE) == pytest.approx(2.0)


def test_a_loss_of_zero_divides_nothing_by_zero() -> None:
    found = _level([0.0] * 20 + [1.0] * 15)
    assert found is not None and found.severity == "error" and _read(found, RISE) == pytest.approx(1e12)


def test_a_jump_while_the_loss_rose_is_an_error() -> None:
    found = _judge(_build([USUAL] * 10 + [LONG] * 3, loss=[1.0] * 50 + [1.5] * 15))
    assert found is not None and found.severity == "error" and found.cause.endswith(", and the loss rose")


def test_the_five_layers_that_moved_most_are_named_and_two_have_numbers() -> None:
    sizes = [0.01, 0.03, math.nan, 0.02, 0.06, 0.05, 0.04]
    found = _judge(_build([[USUAL] * 7] * 10 + [sizes] * 3))
    assert found is not None
    assert found.sites == ("layer4", "layer5", "layer6", "layer1", "layer3")
    assert [(e.site, e.value) for e in found.evidence if e.site] == [
        ("layer4", pytest.approx(0.06)), ("layer5", pytest.approx(0.05)),
    ]  # fmt: skip


def test_the_median_over_the_layers_is_judged() -> None:
    assert _judge(_build([[USUAL] * 3] * 10 + [[LONG, USUAL, USUAL]] * 3)) is None
    assert _judge(_build([[USUAL] * 3] * 10 + [[LONG, LONG, USUAL]] * 3)) is not None


def test_looks_between_steps_are_left_out() -> None:
    ratios = [math.nan, *[USUAL] * 10, math.nan, *[LONG] * 3, math.nan]
    found = _judge(_build(ratios))
    assert found is not None and "just before step 60" in found.cause


def test_vectors_are_not_judged() -> None:
    trace = _build([USUAL] * 10 + [LONG] * 3)
    sites = (Site.parameter("scale", "LayerNorm", {"dimensions": 1}),)
    with pytest.raises(NotApplicable, match="fewer than three looks"):
        rule("OPT001").check(Trace(sites, trace.values, facts=trace.facts, statistics=trace.statistics))


def test_it_needs_a_training_and_three_looks() -> None:
    with pytest.raises(NotApplicable, match="under watch"):
        rule("OPT001").check(Trace((), np.zeros((1, 0, 1)), statistics=("update_log",)))
    with pytest.raises(NotApplicable, match="fewer than three looks"):
        rule("OPT001").check(_build([0.2] * 2))


def test_the_layers_are_ordered_by_the_latest_look() -> None:
    first, last = [0.02, 0.04], [0.05, 0.03]
    found = _judge(_build([[USUAL] * 2] * 10 + [first, first, last]))
    assert found is not None and found.sites == ("layer0", "layer1")
    assert _read(found, "update / weight") == pytest.approx(0.05)


def test_a_run_of_few_steps_is_compared_with_all_before() -> None:
    found = _judge(_build([0.2] * 3, looks=[5, 7, 9], loss=[1.0] * 5 + [2.0] * 5))
    assert found is not None and _read(found, RISE) == pytest.approx(50.0)


def test_a_look_after_the_last_step_has_its_rate() -> None:
    trace = _build([0.02] + [USUAL] * 8 + [LONG] * 3, loss=_rise(45)[:50], rate=[0.1] * 42 + [0.2] * 8)
    assert _judge(trace) is not None


def test_a_rate_that_jumped_between_readings_is_shown_against_the_highest_before() -> None:
    columns = {"loss": [1.0] * 40 + [9.0] * 20, "rate": [0.01] * 40 + [0.5] * 20}
    found = _judge(_build([], looks=[0], **columns))
    assert found is not None and "the steps grew 50 times at step 40" in found.cause
    first = found.evidence[0]
    assert (first.name, first.limit) == ("learning rate / highest before", "< 3")
    assert first.value == pytest.approx(50)
    assert all(math.isfinite(float(e.value)) for e in found.evidence)


def _start(loss: Sequence[float], ratio: float) -> Trace:
    """A run from its first step, with one ratio at all steps and no look."""
    trace = _build([ratio], looks=[0], loss=loss)
    columns: Any = dict(trace.facts["history"])
    columns["update_log"] = np.full(len(loss), math.log(ratio))
    facts: Any = {**trace.facts, "history": columns}
    return Trace(trace.sites, trace.values, facts=facts, statistics=("update_log",))


def _judge_start(loss: Sequence[float], ratio: float) -> Finding | None:
    try:
        return _judge(_start(loss, ratio))
    except NotApplicable:
        return None


WILD = [52, 16, 17, 61, 161, 126, 2, 2, 20, 113, 81, 20, 113, 34, 96, 62]  # of a detector, its rate 30 times


def test_first_steps_that_replace_the_weights_are_a_fault_if_the_loss_stays_higher() -> None:
    found = _judge_start(WILD, 0.09)
    assert found is not None and found.severity == "error"
    assert "changed the weights by" in found.cause and "and the loss went from" in found.cause
    assert _judge_start(WILD, 0.04) is None  # not all of the weights
    assert _judge_start(WILD[:10], 0.09) is None  # too few steps
    falls = [52 * 0.9**k for k in range(16)]
    assert _judge_start(falls, 0.3) is None
    assert _judge_start([2.3] * 5 + [3.3] * 6 + [2.0] * 5, 0.3) is None  # it has come back
    assert _judge_start([2.3, 0.9, 0.8, 1.9, 1.4, *[1.5] * 11], 0.3) is None  # below the first one


def test_long_steps_alone_are_a_note() -> None:
    falling = [1 - 0.01 * k for k in range(40)]
    found = _judge_all(_build([0.2] * 6, loss=falling))
    assert found is not None and found.severity == "note"
    assert found.cause == "each step changes the weights by 20.0%; the loss has not risen"
    assert _judge_all(_build([0.2] * 5 + [0.05], loss=falling)) is None
