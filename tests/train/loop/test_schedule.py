"""Learning rate, momentum and batches of every step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unvanish.train.arguments import Arguments
from unvanish.train.loop import schedule
from unvanish.train.loop.record import Record
from unvanish.train.loop.schedule import Rates


def test_biases_of_detectors_start_high_with_sgd():
    sgd, adam = (kind(nn.Linear(2, 2).parameters(), lr=0.01) for kind in (torch.optim.SGD, torch.optim.AdamW))
    assert schedule.choose_bias_rate(Arguments(), "detect", sgd) == 0.1
    assert schedule.choose_bias_rate(Arguments(), "detect", adam) == 0
    assert schedule.choose_bias_rate(Arguments(), "classify", sgd) == 0
    assert schedule.choose_bias_rate(Arguments(warmup_bias_lr=0.03), "detect", adam) == 0.03


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("linear", [1, 0.505, 0.01]),
        ("cosine", [1, 0.505, 0.01]),
        ("constant", [1, 1, 1]),
        ("step", [1, 0.1, 0.01]),
    ],
)
def test_a_schedule_starts_at_one_and_ends_at_its_last_rate(name, shares):
    found = schedule.build_curve(name, 0.01, [0.5, 0.75])
    assert [found(0), found(0.5), found(1)] == pytest.approx(shares)


def test_cosine_is_flat_at_both_ends():
    found = schedule.build_curve("cosine", 0.0, [])
    assert 1 - found(0.01) < 1e-3 and found(0.99) < 1e-3


def test_warm_up_rises_and_is_at_most_a_third():
    found = schedule.build_schedule(Arguments(warmup_epochs=3, schedule="constant"), 3, 10)
    assert [found(s) for s in (0, 4, 9, 10, 29)] == pytest.approx([1 / 11, 5 / 11, 10 / 11, 1, 1])
    assert schedule.build_schedule(Arguments(warmup_epochs=0), 3, 10)(0) == 1


def test_a_step_takes_more_batches_as_the_warm_up_proceeds():
    a = Arguments(batch=16, nbs=64, ramp=True)
    taken = [schedule.count_batches(a, done, 24) for done in (0, 3, 5, 11, 13, 21, 24, 99)]
    assert taken == [1, 1, 2, 2, 3, 4, 4, 4]
    assert schedule.count_batches(Arguments(batch=16, nbs=64), 0, 24) == 4


def test_rates_follow_the_record():
    a = Arguments(batch=16, nbs=64, ramp=True, warmup_epochs=1, warmup_momentum=0.8, schedule="constant")
    rates = Rates(a, rate=0.01, biases=0.1, momentum=0.9, batches=16)
    optimizer = torch.optim.SGD([{"params": nn.Linear(2, 2).parameters(), "biases": True}], 1.0, 0.5)
    group = optimizer.param_groups[0]
    assert rates.steps == 4 and rates.count_batches(Record(6)) == 1
    rates.set(optimizer, Record(6))  # one of five rising steps
    assert (group["lr"], group["momentum"]) == pytest.approx((0.01 / 5 + 0.1 * 4 / 5, 0.8))
    rates.set(optimizer, Record(6, batch=8, step=5))  # half of the warm-up, by batches
    assert (group["lr"], group["momentum"]) == pytest.approx((0.01 * 3 / 5 + 0.1 * 2 / 5, 0.85))
    after = Record(6, epoch=2, step=11)
    rates.set(optimizer, after)
    assert (group["lr"], group["momentum"]) == pytest.approx((0.01, 0.9)) and rates.count_batches(after) == 4


def test_rates_are_planned_for_the_epochs_that_are_left():
    rates = Rates(Arguments(epochs=10, warmup_epochs=0, lrf=0.0), 1.0, 0.0, 0.9, batches=4)
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 1.0)
    rates.set(optimizer, Record(10, epoch=2, step=8))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.8)
    rates.plan(4)
    rates.set(optimizer, Record(4, epoch=2, step=8))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)
