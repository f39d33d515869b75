"""Ranks agree on the question at which all end, in whatever order they come, and none waits for another."""

from __future__ import annotations

import random
import time
import warnings

import pytest
from torch.distributed import HashStore

from unvanish.clinic.watch.line import Line
from unvanish.integrations.ballot import TRIES, Ballot


def open_ballots(ranks: int, here: int | None = None) -> list[Ballot]:
    store = HashStore()
    return [Ballot(Line(store, "test/"), ranks) for _ in range(ranks if here is None else here)]


def play(seed: int) -> None:
    """Ranks in a random order, some with a wish from some question on, some that leave early."""
    draw = random.Random(seed)
    ranks = draw.randint(2, 4)
    ballots = open_ballots(ranks)
    wishes = [draw.randint(1, 12) if draw.random() < 0.5 else 99 for _ in ballots]
    lasts = [draw.randint(1, 15) if draw.random() < 0.3 else 15 for _ in ballots]
    asked, answers = [0] * ranks, [dict[int, bool]() for _ in ballots]
    while going := [r for r in range(ranks) if asked[r] < lasts[r] and True not in answers[r].values()]:
        rank = draw.choice(going)
        for _ in range(draw.randint(1, 4)):  # one may be far ahead
            if asked[rank] < lasts[rank] and not answers[rank].get(asked[rank]):
                asked[rank] += 1
                answers[rank][asked[rank]] = ballots[rank].ask(asked[rank] >= wishes[rank])
    for question in range(1, 16):
        assert len({a[question] for a in answers if question in a}) <= 1, (seed, question, answers)
    wanted = [r for r in range(ranks) if asked[r] >= wishes[r]]
    ends = [q for a in answers for q, end in a.items() if end]
    assert wanted or not ends
    for rank in wanted:  # its wish holds from the first question on that nobody had answered
        assert asked[rank] == lasts[rank] or ends


def test_all_give_the_same_answer_to_each_question() -> None:
    for seed in range(400):
        play(seed)


def test_ranks_in_step_end_at_the_question_of_the_first_wish() -> None:
    one, other = open_ballots(2)
    assert [(one.ask(k >= 2), other.ask(False)) for k in range(4)] == [(False, False)] * 2 + [
        (True, True)
    ] * 2
    one, other = open_ballots(2)
    assert [(one.ask(False), other.ask(k >= 2)) for k in range(4)] == [(False, False)] * 3 + [(True, True)]


def test_who_is_missing_ends_nothing_and_is_said_once() -> None:
    (alone,) = open_ballots(2, here=1)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert not any(alone.ask(True) for _ in range(2 * TRIES))
    assert [str(w.message) for w in heard] == [
        "unvanish: the ranks cannot agree to stop, so the training goes on: 1 of 2 have a callback that may "
        "end it"
    ]


def test_a_store_that_fails_ends_nothing_and_is_said_once() -> None:
    class Broken:
        def compare_set(self, *_: str) -> bytes:
            raise RuntimeError("the server is gone")

        def add(self, *_: object) -> int:
            return 1

    ballot = Ballot(Line(Broken(), "test/"), 1)
    with pytest.warns(RuntimeWarning, match="does not answer .*the server is gone"):
        assert not ballot.ask(False)
    assert not ballot.ask(False)
    with pytest.warns(RuntimeWarning, match="no store"):
        assert not Ballot(None, 2).ask(True)


def test_a_question_waits_for_no_rank() -> None:
    one, _ = open_ballots(2)
    began = time.perf_counter()
    for _ in range(200):
        one.ask(False)
    assert time.perf_counter() - began < 5
