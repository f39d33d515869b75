"""A backlog whose lock nobody releases is no reason to wait without end."""

from __future__ import annotations

import time

import pytest

from unvanish.store import backlog
from unvanish.store.backlog import Backlog


def test_a_lock_that_is_never_released_ends_no_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "WAIT", 0.05)
    held = Backlog()
    held.put("steps", (0,))
    held._lock._lock.acquire()  # as an exception between a block and its release leaves it
    begun = time.monotonic()
    for work in (lambda: held.put("steps", (1,)), held.take, held.settle, held.give_up):
        with pytest.raises(RuntimeError, match="was not free"):
            work()
    assert time.monotonic() - begun < 5
    held._lock._lock.release()
    assert [row for _, row in held.take()] == [(0,)]
