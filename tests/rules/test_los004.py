"""LOS004 on trainings written by hand: when a loss is no better than a guess, and when nobody can say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Trace
from unvanish.rules import rule

GUESS = 2.3


def _judge(loss: Any, *, rate: Any = None, value: float | None = None, **labels: Any) -> Finding | None:
    loss = np.asarray(loss, np.float64)
    steps = np.arange(len(loss), dtype=np.float64)
    read = [(int(s), float(loss[s]) if value is None else value) for s in range(0, len(loss), 20)]
    facts: Any = {
        "live": True,
        "history": {"step": steps, "loss": loss, "lr": np.full(len(loss), 0.1) if rate is None else rate},
        "labels": {
            "guess": GUESS, "off": 0.001, "read": read, "varied": 1.0, "same": False, "answers": 10, **labels,
        },
    }  # fmt: skip
    found = rule("LOS004").check(Trace((), np.zeros((1, 0, 1)), facts=facts, statistics=("update_log",)))
    return found[0] if found else None


def _flat(steps: int, level: float = GUESS, noise: float = 0.05) -> Any:
    return level + noise * np.random.default_rng(0).standard_normal(steps)


def test_a_loss_that_stays_at_the_guess_is_a_note_and_then_a_warning() -> None:
    assert _judge(_flat(290)) is None
    early, late = _judge(_flat(320, noise=0.02)), _judge(_flat(1010))
    assert early is not None and early.severity == "note" and late is not None and late.severity == "warning"
    assert early.cause.startswith(
        "no better than guessing by frequency: the loss is 2.3 against 2.3 nats after 320 steps"
    )
    assert late.sites == ("loss",) and late.cause.endswith("after 1010 steps")


@pytest.mark.parametrize("level", [2.29, 2.4, 9.0])
def test_what_is_at_the_guess_or_above_is_no_better(level: float) -> None:
    assert _judge(_flat(1010, level, 0.02)) is not None


@pytest.mark.parametrize("level", [2.26, 2.0])
def test_what_was_below_it_once_is(level: float) -> None:
    loss = _flat(1010, noise=0.02)
    loss[500:600] = _flat(100, level, 0.02)
    assert _judge(loss) is None


def test_a_difference_within_the_noise_is_none() -> None:
    assert _judge(_flat(1010, 2.26, noise=0.5)) is not None


def test_what_still_falls_is_a_slow_start() -> None:
    assert _judge(_flat(1010, noise=0.02) + np.linspace(0.5, 0, 1010)) is None


def test_a_fall_to_the_guess_is_no_start() -> None:
    settling = 0.05 * np.exp(-np.arange(1010) / 200)
    assert _judge(_flat(1010, noise=0.002) + settling) is not None


def test_a_rate_that_still_grows_is_a_warm_up() -> None:
    assert _judge(_flat(1010), rate=np.linspace(0, 0.1, 1010)) is None
    assert _judge(_flat(1010), rate=np.logspace(-5, -1, 1010)) is None
    assert _judge(_flat(1010), rate=np.full(1010, math.nan)) is not None


def test_only_steps_at_the_full_rate_count() -> None:
    def severity(*rates: tuple[int, float]) -> str:
        found = _judge(
            _flat(sum(n for n, _ in rates)), rate=np.concatenate([np.full(n, r) for n, r in rates])
        )
        return found.severity if found else ""

    assert severity((800, 0.01), (250, 0.1)) == ""
    assert severity((400, 0.01), (620, 0.1)) == "note"
    assert severity((10, 0.01), (1040, 0.1)) == severity((1010, 0.1), (300, 0.001)) == "warning"


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"guess": 0.001}, "all the same"),
        ({"varied": 0.5}, "all the same"),
        ({"off": 0.1}, "too few labels"),
        ({"read": []}, "no cross-entropy"),
        ({"read": [(k, 2.3) for k in range(4)]}, "no cross-entropy"),
        ({"value": 2.0}, "more than a cross-entropy"),
    ],
)
def test_where_the_guess_is_not_known_nobody_can_say(labels: Any, why: str) -> None:
    with pytest.raises(NotApplicable, match=why):
        _judge(_flat(1010), **labels)


def test_two_classes_half_and_half_in_each_batch_may_be_a_game() -> None:
    found = _judge(_flat(1010), same=True, answers=2)
    assert found is not None and found.severity == "note"
    found = _judge(_flat(1010), same=True)
    assert found is not None and found.severity == "warning"
