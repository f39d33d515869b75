"""What a backlog is given comes out once, whatever happens between those who put and the one who takes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from unvanish.store.backlog import RECORDS, Backlog


def test_what_is_put_while_it_is_taken_comes_once_and_the_last_fact_stays() -> None:
    backlog, count, done = Backlog(), 20_000, threading.Event()
    came: list[int] = []
    facts: dict[str, int] = {}

    def put() -> None:
        for step in range(count):
            while len(backlog) > RECORDS // 2:
                pass
            backlog.put("steps", (step,))
            backlog.put("meta", (f"looks{step % 3}", step))
        done.set()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=put)
    try:
        thread.start()
        while not done.is_set() or len(backlog):
            records = backlog.take()
            came += [row[0] for table, row in records if table == "steps"]
            facts.update({row[0]: row[1] for table, row in records if table == "meta"})
            backlog.settle(records)
    finally:
        sys.setswitchinterval(before)
        thread.join()
    assert came == list(range(count)) and not backlog.losses.dropped
    assert sorted(facts.values()) == [count - 3, count - 2, count - 1]


def test_what_fails_while_rows_are_put_or_taken_holds_nobody_up() -> None:
    def fail_after(row: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        yield row
        raise ZeroDivisionError

    backlog = Backlog()
    for table in ("steps", "meta"):
        with pytest.raises(ZeroDivisionError):
            backlog.put_all(table, fail_after(("a", 1)))
    backlog.take()  # and nobody settles it
    backlog.put("steps", ("b", 2))
    assert backlog.take() == [("meta", ("a", 1)), ("steps", ("a", 1)), ("steps", ("b", 2))]
    written = backlog.take()
    backlog.put("meta", ("a", 3))
    backlog.settle(written)
    assert backlog.take() == [("meta", ("a", 3))]
    backlog.give_up()
    assert not len(backlog) and backlog.losses.dropped == 1
    backlog.settle(written[1:])  # by a thread whose disk answered after all
    assert not len(backlog)
    backlog.repeat()
    assert backlog.take() == [("meta", ("a", 3))]
