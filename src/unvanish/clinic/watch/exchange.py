"""What the ranks of a training tell each other about it, by a thread that waits for nobody.

Notable:
- Findings go to the first rank, which speaks for all. Steps and looks go there if they are of shards, which
  say something only when they are joined; and everything, if its folder is not ours.
- What must act everywhere is announced to all ranks (`alarms`).
- The training's thread only puts rows into a list and looks whether another one is empty. If the store
  fails, or this thread, the ranks are on their own from then on, and the training goes on.
- Rows that the first rank should keep and did not get are counted, here and in its record.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unvanish.clinic.watch.line import Channel, Line, LineBroken
from unvanish.clinic.watch.merging import Joined, Merging
from unvanish.core.caution import caution, locate
from unvanish.core.diagnosis import Finding
from unvanish.core.plain import plain
from unvanish.store import Run, Store, StoreError, parse_finding
from unvanish.store.backlog import Losses
from unvanish.store.joining import Holding
from unvanish.store.opened import note_opening
from unvanish.store.records import Record, Records
from unvanish.store.schema import RELAYED

PAUSE = 0.2  # seconds between two talks with the store
WAITING = 8192  # records that may wait for being sent
BLOCK, BLOCKS = 512, 16  # records of a message, messages that may lie unread
TABLES = ("meta", "sites", "steps", "samples", "profiles", "findings")


@dataclass(frozen=True)
class RankFinding:
    """A finding of another rank."""

    rank: int
    step: int
    finding: Finding


@dataclass(frozen=True)
class Alarm:
    """A finding on which every rank must act, before its step `act`."""

    rank: int
    step: int
    act: int
    finding: Finding


@dataclass
class Mail:
    """What has come, for the training's thread to take."""

    heard: deque[RankFinding] = field(default_factory=deque)
    alarms: deque[Alarm] = field(default_factory=deque)
    joined: deque[Joined] = field(default_factory=deque)


class Exchange(Records):
    """One rank's end; `close` sends what waits and ends the thread.

    `folder`: of the run, if it has one. `shards`: whether steps and looks must be joined to say something.
    `first`: the first step to come.
    """

    def __init__(
        self, line: Line, holding: Holding, folder: Path | None, shards: bool, first: int = 0
    ) -> None:
        self.rank, self.holding, self.folder, self._shards = holding.rank, holding, folder, shards
        self.first = first
        self.mail = Mail()
        self.failure = ""  # of the store or of our thread, in a line
        self.notes: list[str] = []  # what is left out, and why
        self._missed, self._missed_there = Losses(), dict[int, Losses]()  # rows that did not go, by rank
        self._announced = 0  # of our own
        self.relayed: set[int] = set()  # ranks whose records came here
        self._refused: set[int] = set()  # ranks whose records have no file
        self._line, self._merging = line, Merging(holding)
        self._copying: bool | None = None if folder is not None else False  # whether all must be sent
        self._leads, self._left = self.rank == 0, False
        self._outgoing: deque[Record] = deque()
        self._alarms: deque[Alarm] = deque()
        self._sent: deque[tuple[str, list[Record]]] = deque()  # messages that may lie unread
        self._inbox, self._calls = Channel("inbox"), Channel("alarms")
        self._stores: dict[int, Store] = {}
        self._marker = None if folder is None else folder / f".ranks-{uuid.uuid4().hex[:12]}"
        self._stop = threading.Event()
        self._closed = self._ended = False  # takes no rows; has let go of all
        self._served = False  # the thread has done its work to the end
        self._thread = threading.Thread(target=self._work, name="unvanish-ranks", daemon=True)
        note_opening(self)
        self._thread.start()

    # -- the training's thread

    def put(self, table: str, row: tuple[Any, ...]) -> None:
        """Take one row, if anybody else needs it; never waits."""
        if self._closed or not self._is_wanted(table):
            return
        if self.failure or (len(self._outgoing) >= WAITING and table != "findings"):
            self._missed.count(table)
        else:
            self._outgoing.append((table, row))

    def announce(self, step: int, act: int, finding: Finding) -> None:
        """Make every rank act on a finding of ours."""
        self._alarms.append(Alarm(self.rank, step, act, finding))

    @property
    def speaks(self) -> bool:
        """Whether findings are told on this rank: on the first one, or if that one does not watch."""
        return self.rank == 0 or not self._leads or self._left or bool(self.failure)

    @property
    def losses(self) -> Losses:
        """Rows that the first rank should keep and did not get, and why."""
        missed = self._missed if self._copying and self.rank else Losses()
        return Losses(missed.dropped, missed.steps, self.failure)

    def close(self) -> list[RankFinding]:
        """Send what waits and end; our findings that reached nobody. Harmless when repeated."""
        if self._ended:
            return []
        self._closed = True
        self._stop.set()
        self._thread.join(5)
        if not self._thread.is_alive():
            if not self._served and not self.failure:
                self._break(RuntimeError("its thread has ended"))
            self._clear()
        for table, _ in () if self._left else self._outgoing:
            self._missed.count(table)
        self._ended = True
        unheard = [record for _, records in self._sent for record in records] + list(self._outgoing)
        lost = unheard if self.rank != 0 and (self._left or self.failure) else []
        return [_read_finding(self.rank, row) for table, row in lost if table == "findings"]

    def _is_wanted(self, table: str) -> bool:
        if self.rank == 0:
            return self._shards and table in ("sites", "meta", "steps", "samples")
        return table == "findings" or self._copying is not False or (self._shards and table != "profiles")

    # -- the thread

    def _work(self) -> None:
        """Talk until the run ends; what fails ends the talk, and is said."""
        for work in (self._serve, self._clear):
            try:
                work()
            except LineBroken as error:
                self.failure = str(error)
            except BaseException as error:  # nobody else hears it
                self._break(error)
        self._served = True

    def _serve(self) -> None:
        if self.rank == 0:
            self._lead()
        while not self._stop.wait(PAUSE):
            self._talk()
        self._talk()
        self._line.write("left" if self.rank == 0 else f"left/{self.rank}", True)

    def _break(self, error: BaseException) -> None:
        """A fault of ours ends the talk: said once."""
        self.failure = self.failure or locate(error)
        caution(
            f"unvanish: the talk of the watch's rank {self.rank} with the others failed inside itself ("
            f"{self.failure}); the training goes on, and this rank is watched alone. Please report this"
        )

    def _clear(self) -> None:
        """Close what was opened for other ranks; harmless when repeated."""
        for store in self._stores.values():
            store.close()
        if self._marker is not None and self.rank == 0:
            with contextlib.suppress(OSError):
                self._marker.unlink(missing_ok=True)

    def _lead(self) -> None:
        """Say that the first rank watches, and where its folder can be recognised."""
        if self._marker is not None:
            self._marker.touch()
        self._line.write("lead", None if self._marker is None else self._marker.name)
        self._line.write("leads", True)

    def _talk(self) -> None:
        if self.rank == 0:
            for message in self._line.collect(self._inbox, keep=False):
                self._take(message)
            own = [self._outgoing.popleft() for _ in range(len(self._outgoing))]
            self._merging.add(self.holding, own)
            self.mail.joined.extend(self._merging.take())
        else:
            self._send()
        if self._left:
            return
        while self._alarms:
            self._line.post("alarms", _pack_alarm(self._alarms.popleft()))
        for message in self._line.collect(self._calls, keep=True):
            if int(message["rank"]) != self.rank:
                self.mail.alarms.append(_unpack_alarm(message))

    def _send(self) -> None:
        """Send what waits to the first rank, if it watches and reads."""
        if not self._leads and self._line.has("leads"):
            self._leads, marker = True, self._line.read("lead")
            if self._copying is None:
                self._copying = self.folder is None or marker is None or not (self.folder / marker).exists()
                self._copying = self._copying and marker is not None
        if not self._leads or self._left:
            return
        self._left = self._line.has("left")
        while self._sent and not self._line.has(self._sent[0][0]):
            self._sent.popleft()
        while self._outgoing and not self._left and (len(self._sent) < BLOCKS or self._stop.is_set()):
            waiting = [self._outgoing[i] for i in range(min(BLOCK, len(self._outgoing)))]
            block = [record for record in waiting if self._is_wanted(record[0])]
            if block:
                self._sent.append((self._line.post("inbox", self._pack(block)), block))
            for _ in waiting:
                self._outgoing.popleft()
        if self._missed.dropped > self._announced and self._stop.is_set() and not self._left:
            self._line.post("inbox", self._pack(()))

    def _pack(self, records: Sequence[Record]) -> dict[str, Any]:
        h, missed = self.holding, self._missed
        about = {"rank": h.rank, "ranks": h.ranks, "layout": h.layout, "shards": h.shards}
        self._announced = missed.dropped
        return {
            **about,
            "first": self.first,
            "missed": [missed.dropped, missed.steps],
            "copy": bool(self._copying),
            "records": [[t, _pack_row(row)] for t, row in records],
        }

    def _take(self, message: Any) -> None:
        """Records of another rank have come."""
        holding = Holding(
            int(message["rank"]), int(message["ranks"]), str(message["layout"]), int(message["shards"])
        )
        records = [(str(t), _unpack_row(row)) for t, row in message["records"] if t in TABLES]
        self._merging.add(holding, records)
        for _, row in (record for record in records if record[0] == "findings"):
            self.mail.heard.append(_read_finding(holding.rank, row))
        missed = self._count_missed(holding.rank, *map(int, message["missed"]))
        store = self._store_of(holding, int(message["first"])) if message["copy"] else None
        if store is not None:
            store.lose(missed)
            for table, row in records:
                store.put(table, row)
        elif missed.dropped:
            self._note(
                f"rank {holding.rank}: {missed.describe()} did not come to the first rank, whose rules have"
                " not seen them"
            )

    def _count_missed(self, rank: int, dropped: int, steps: int) -> Losses:
        """What a rank has left out since its last message."""
        before = self._missed_there.get(rank, Losses())
        self._missed_there[rank] = Losses(dropped, steps)
        return Losses(dropped - before.dropped, steps - before.steps)

    def _store_of(self, holding: Holding, first: int) -> Store | None:
        """The file for what comes from a rank whose folder is not ours; None without, or if it is refused."""
        rank = holding.rank
        if rank in self._stores or self.folder is None or rank in self._refused:
            return self._stores.get(rank)
        try:
            store = self._stores[rank] = Store(self.folder, name=RELAYED.format(rank))
            before = Run(self.folder, RELAYED.format(rank)).facts().get("sessions", [])
        except StoreError as error:
            self._refused.add(rank)
            self._note(f"the records of rank {rank}, from another folder, are not kept: {error}")
            return self._stores.get(rank)
        store.describe(rank=rank, layout=holding.layout, shards=holding.shards)
        store.describe(sessions=[*before, [first, holding.ranks]])
        self.relayed.add(rank)
        return store

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _read_finding(rank: int, row: Sequence[Any]) -> RankFinding:
    return RankFinding(rank, int(row[1]), parse_finding(json.loads(row[5])))


def _pack_alarm(alarm: Alarm) -> dict[str, Any]:
    return {"rank": alarm.rank, "step": alarm.step, "act": alarm.act, "finding": plain(alarm.finding)}


def _unpack_alarm(message: Any) -> Alarm:
    return Alarm(
        int(message["rank"]), int(message["step"]), int(message["act"]), parse_finding(message["finding"])
    )


def _pack_row(row: Sequence[Any]) -> list[Any]:
    """Plain data that JSON holds, bytes in base64."""
    return [{"b": base64.b64encode(v).decode()} if isinstance(v, bytes) else v for v in row]


def _unpack_row(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(base64.b64decode(v["b"]) if isinstance(v, dict) else v for v in row)
