"""Batches of an epoch from its start and from its middle, with the same draws."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset

from unvanish.train.loop import randomness
from unvanish.train.loop.batches import Batches
from unvanish.train.loop.record import Record


def shuffled():
    loader = DataLoader(TensorDataset(torch.arange(10)), 2, shuffle=True)
    return Batches(None, loader, None)


def read(batches, record, sizes):
    """Pairs of samples and a number drawn after each window, as a step with dropout draws."""
    size = iter([*sizes, 1, 1, 1, 1, 1, 1])
    windows = batches.windows(record, lambda: next(size))
    return [(torch.cat([x for (x,) in window]).tolist(), torch.rand(1).item()) for window in windows]


def test_windows_group_the_batches_of_an_epoch():
    found = read(shuffled(), Record(1), [2, 2])
    assert [len(samples) for samples, _ in found] == [4, 4, 2]
    assert sorted(i for samples, _ in found for i in samples) == list(range(10))


def test_an_epoch_that_is_resumed_continues_with_the_same_draws():
    randomness.seed(3)
    batches = shuffled()
    batches.begin_epoch(Record(1))
    start, now, whole = batches.start, None, []
    for window in batches.windows(Record(1), lambda: 1):
        whole.append((window[0][0].tolist(), torch.rand(1).item()))
        if len(whole) == 2:
            now = randomness.capture()
    randomness.seed(99)
    again, record = shuffled(), Record(1, batch=2, step=2)
    again.resume({"start": start, "now": now}, record)
    again.begin_epoch(record)  # which keeps the states of the epoch's start
    assert again.start is start
    assert read(again, record, []) == whole[2:]
    assert again.resumed is None


def test_between_epochs_the_states_are_restored_at_once():
    randomness.seed(5)
    states = randomness.capture()
    expected = torch.rand(1).item()
    shuffled().resume({"start": states, "now": states}, Record(2, epoch=1))
    assert torch.rand(1).item() == expected


class Scenes:
    """Data that can start an epoch at any batch."""

    def __init__(self):
        self.started = []

    def start_epoch(self, epoch, first):
        self.started.append((epoch, first))


def test_data_that_can_skip_is_asked_to():
    data = Scenes()
    batches = Batches(data, [1, 2, 3], None)
    assert list(batches.windows(Record(5, epoch=4, batch=2), lambda: 2)) == [(1, 2), (3,)]
    assert data.started == [(4, 2)] and len(batches) == 3
