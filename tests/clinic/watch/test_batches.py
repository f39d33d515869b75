"""BatchMemory that are met again, and labels that no longer belong to their samples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unvanish.clinic.watch.batches import BatchMemory, measure_gaps
from unvanish.probes.live.batch_rows import NUMBERS, SAMPLES, read_rows


def meet(batches: BatchMemory, step: int, x: Tensor, y: Tensor | None) -> None:
    batches.hear(y)
    batches.note(step, read_rows(x), len(x))


def test_labels_of_samples_that_are_met_again_are_compared() -> None:
    x, y, batches = torch.arange(40.0).reshape(20, 2), torch.arange(20) % 4, BatchMemory()
    meet(batches, 0, x[:10], y[:10])
    meet(batches, 1, x[5:15], y[5:15])
    meet(batches, 2, x[:10], y[:10].roll(1))
    facts = batches.facts
    assert facts is not None and facts["alike"] == [False] * 3
    assert (facts["met"], facts["same"], facts["lent"]) == ([0, 5, 10], [0, 5, 0], [0, 0, 10])
    assert facts["chance"] == pytest.approx(0.25, abs=0.01)


def test_labels_of_another_number_of_samples_say_nothing() -> None:
    x, batches = torch.randn(6, 2), BatchMemory()
    for step in range(2):
        meet(batches, step, x, torch.zeros(12, dtype=torch.int64))
    assert batches.facts is not None and batches.facts["met"] == [0, 0]


def test_one_batch_is_doubtful_until_two_looks_are_an_odd_number_of_steps_apart() -> None:
    x, batches = torch.randn(4, 3), BatchMemory()
    meet(batches, 4, torch.randn(4, 3), None)
    for step, doubtful in ((8, False), (16, True), (32, True), (33, False)):
        meet(batches, step, x, None)
        assert batches.doubtful is doubtful
    assert measure_gaps([1, 4, 8], [False, True, False]) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_every_dtype_is_read(dtype: torch.dtype) -> None:
    x, batches = (torch.arange(512).reshape(2, 256) % 3).to(dtype), BatchMemory()
    meet(batches, 0, x, torch.tensor([0, 1]))
    meet(batches, 1, x, torch.tensor([0, 1]))
    assert batches.facts is not None and batches.facts["alike"] == [False, True]


def test_only_a_few_numbers_are_copied() -> None:
    rows = read_rows(torch.randn(300, 7, 100))
    assert rows is not None and rows.shape == (SAMPLES, NUMBERS)
    assert read_rows(None) is None and read_rows(torch.randn(2, dtype=torch.complex64)) is None
