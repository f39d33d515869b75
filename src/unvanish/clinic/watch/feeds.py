"""A sink fed from the record of a watch: a bounded backlog, and a thread of the sink's own.

Notable:
- The training hands its rows to the backlog, as it does to that of the run folder, and waits for nothing.
- A sink that raises, or ends no call, is left out with one warning; the training and the others go on.
- In a forked child there is no feed: its thread and its sink are the parent's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from unvanish.clinic.watch.merging import Joined
from unvanish.clinic.watch.telling import Teller
from unvanish.core.caution import caution, summarize
from unvanish.core.sink import Sink
from unvanish.store.backlog import Backlog
from unvanish.store.records import Records

PAUSE = 0.5  # seconds between two tellings
CLOSING, DRAWING = 15.0, 8.0  # seconds that the end of a run waits for a sink, and of these for a picture


class SinkFeed(Records):
    """Feeds one sink; `failure`: why it was left out, in a line."""

    def __init__(self, name: str, sink: Sink, folder: Path | None = None, pause: float = PAUSE) -> None:
        self.name, self.sink, self.folder, self.pause = name, sink, folder, pause
        self.failure = ""
        self._backlog = Backlog()
        self._teller = Teller(sink, sink.rate)
        self._stop = threading.Event()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._work, name=f"unvanish-{name}", daemon=True)
        self._thread.start()

    def put(self, table: str, row: tuple[Any, ...]) -> None:
        """Take one row; never waits."""
        self.put_all(table, (row,))

    def put_all(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take rows of one table; never waits."""
        if not self.failure and not self._stop.is_set() and table != "profiles":
            self._backlog.put_all(table, rows)

    def take_joined(self, joined: Joined) -> None:
        """Take what was joined from the shards of several ranks."""
        self.steps(joined.steps)
        for step, values in joined.looks:
            self.sample(step, values)

    def close(self) -> None:
        """Tell what waits, end the sink and its thread; harmless when repeated."""
        if os.getpid() != self._process:
            return
        self._stop.set()
        self._thread.join(CLOSING)
        if self._thread.is_alive():
            self._leave_out(f"it has not answered for {CLOSING:g} s")

    def describe_losses(self) -> str:
        """What the sink did not get, in a sentence; empty if it got every row that it takes."""
        if self.failure:
            return f"the sink {self.name} was left out: {self.failure}"
        lost = self._backlog.losses.describe()
        return f"the sink {self.name} was too slow for {lost}" if lost else ""

    # -- the thread

    def _work(self) -> None:
        """Tell until the run ends, then draw what the sink wants to see, and close it."""
        while not self._stop.wait(self.pause) and not self.failure:
            self._try(self._tell)
        if not self.failure:
            self._try(self._tell)
        if not self.failure and self.sink.draws:
            self._try(self._show)
        if not self.failure:
            self._try(self.sink.close)
        else:
            with suppress(BaseException):
                self.sink.close()

    def _try(self, work: Callable[[], None]) -> None:
        """Do a part of the work; whatever it raises, the sink is left out and nothing else happens."""
        try:
            work()
        except BaseException as error:  # of a library that nobody here knows, in a thread of its own
            self._leave_out(summarize(error))

    def _tell(self) -> None:
        records = self._backlog.take()
        self._teller.tell(records)
        self._backlog.settle(records)

    def _show(self) -> None:
        """Draw the run, unless that takes long, as on a machine that is busy."""
        if self.folder is None:
            return
        drawn: list[bytes | None] = []
        folder = self.folder
        artist = threading.Thread(target=lambda: drawn.append(draw_run(folder)), daemon=True)
        artist.start()
        artist.join(DRAWING)
        if drawn and drawn[0] is not None:
            self.sink.picture(max(0, self._teller.told), "run", drawn[0])

    def _leave_out(self, why: str) -> None:
        if not self.failure:
            self.failure = why
            self._backlog.give_up()
            caution(f"unvanish: the sink {self.name} is left out ({why}); the training goes on without it")


def draw_run(folder: Path) -> bytes | None:
    """The curves and the heat map of a run as PNG; None without the libraries, or if it cannot be drawn."""
    from unvanish.reports.run import html
    from unvanish.store import StoreError, open_run

    try:
        return html.draw(open_run(folder))
    except (html.MissingLibrary, StoreError, ValueError):
        return None
