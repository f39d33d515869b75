"""Properties of the order: every index once, any batch first, similar lengths together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unvanish.lab.data.order import Order

SIZES = st.integers(1, 300)
BATCHES = st.integers(1, 40)
SEEDS = st.integers(0, 1000)


def flat(order):
    return [i for batch in order for i in batch]


@given(SIZES, BATCHES, SEEDS, st.booleans(), st.booleans())
def test_an_epoch_has_every_index_once(size, batch, seed, shuffle, bucketed):
    lengths = np.random.default_rng(seed).integers(1, 50, size) if bucketed else None
    order = Order(size, batch, seed, shuffle, lengths)
    batches = list(order)
    seen = [i for b in batches for i in b]
    assert len(batches) == len(order) and len(set(seen)) == len(seen)
    lone = shuffle and size % batch == 1 and size > batch
    assert len(seen) == size - lone and set(seen) <= set(range(size))
    assert all(len(b) == batch for b in batches[:-1])


@given(SIZES, BATCHES, SEEDS, st.integers(0, 5), st.data())
def test_an_epoch_entered_later_goes_on_the_same(size, batch, seed, epoch, data):
    lengths = np.random.default_rng(seed).integers(1, 50, size)
    order = Order(size, batch, seed, True, lengths)
    order.start(epoch)
    whole = list(order)
    first = data.draw(st.integers(0, len(order)))
    other = Order(size, batch, seed, True, lengths)
    other.start(epoch, first)
    assert list(other) == whole[first:]
    assert all(i // size == epoch for b in whole for i in b)


@given(st.integers(200, 2000), st.integers(2, 16), SEEDS)
def test_buckets_hold_similar_lengths(size, batch, seed):
    lengths = np.random.default_rng(seed).integers(1, 100, size)
    spread = [np.ptp(lengths[b]) for b in Order(size, batch, seed, True, lengths).batches(0)]
    by_chance = [np.ptp(lengths[b]) for b in Order(size, batch, seed, True).batches(0)]
    assert np.mean(spread) < 0.5 * np.mean(by_chance)


def test_epochs_and_seeds_differ_and_epochs_follow_each_other():
    order = Order(100, 10, seed=1)
    first, second = flat(order), flat(order)
    assert [i % 100 for i in first] != [i % 100 for i in second]
    assert {i // 100 for i in second} == {1}
    assert flat(Order(100, 10, seed=2)) != first
    again = Order(100, 10, seed=1)
    again.start(1)
    assert flat(again) == second


def test_unshuffled_is_the_same_every_time():
    order = Order(10, 4, shuffle=False)
    assert list(order) == list(order) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_batch_that_is_not_there_is_refused():
    with pytest.raises(IndexError, match="5 batches"):
        Order(50, 10).start(0, 6)
