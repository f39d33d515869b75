"""The step that is being made, its row, and the clock that times it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from unvanish.clinic.watch import clock
from unvanish.clinic.watch.rows import StepRow, StepTable, tabulate
from unvanish.clinic.watch.steps import CurrentStep


def test_the_norms_of_several_optimizers_make_one() -> None:
    step = CurrentStep(5, 5)
    step.add_norm(3.0, exact=True)
    step.stepped.add(1)
    step.add_norm(4.0, exact=False)
    row = step.close((0.1, 0.1), skipped=False)
    assert (row.step, row.norm, row.exact) == (5, 5.0, False)
    step.advance()
    assert step.number == 6 and step.first == 5
    assert math.isnan(step.norm) and step.exact and not step.stepped


def test_a_loss_belongs_to_one_step_only() -> None:
    step = CurrentStep(0, 0, loss=2.5)
    assert step.close((0.1, 0.1), skipped=False).loss == 2.5
    assert math.isnan(step.close((0.1, 0.1), skipped=False).loss)


def test_the_clock_counts_our_own_seconds_and_the_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock, "perf_counter", lambda: now[0])
    ours = clock.StepClock(began=0.0, last=0.0)
    now[0] = 5.0
    ours.start()
    now[0] = 6.0
    ours.stop()
    now[0] = 8.0
    ours.start()
    now[0] = 10.0
    assert ours.end_step() == (3.0, 10.0)
    now[0] = 11.0
    ours.stop()  # what follows the end of a step is the next one's
    now[0] = 20.0
    ours.start()
    assert ours.end_step() == (1.0, 10.0)


def rows(*norms: tuple[float, float], exact: bool = True) -> Any:
    """Rows with these norms after and before clipping."""
    return tabulate(
        [StepRow(k, 0.0, 0.1, 0.1, norm, before, 1.0, exact=exact) for k, (norm, before) in enumerate(norms)]
    )


def test_clipping_is_known_from_its_ceiling_once_it_was_measured() -> None:
    table = StepTable()
    table.add(rows((1.0, 9.0), (1.0, math.nan), (0.3, math.nan)))
    assert [r["clipped"] for r in table.rows] == [1.0, 1.0, 0.0]
    table.add(rows((1.0, math.nan), exact=False))
    assert math.isnan(table.rows[-1]["clipped"])  # an estimate does not tell
    assert table.columns()["norm_log"].tolist() == [0.0, 0.0, math.log(0.3), 0.0]
