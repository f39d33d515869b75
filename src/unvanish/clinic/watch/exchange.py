"""What the ranks of a training tell each other about it, by a thread that waits for nobody.

Notable:
- Findings go to the first rank, which speaks for all. Steps and looks go there if they are of shards, which
  say something only when they are joined; and everything, if its folder is not ours.
- What must act everywhere is announced to all ranks (`alarms`).
- The training's thread only puts rows into a list and looks whether another one is empty. If the store
  fails, the ranks are on their own from then on, and the training goes on.
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

from unvanish.clinic.watch.line import Channel, Line
from unvanish.clinic.watch.merging import Joined, Merging
from unvanish.core.diagnosis import Finding
from unvanish.core.plain import plain
from unvanish.store import Store, parse_finding
from unvanish.store.joining import Holding
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
    """

    def __init__(self, line: Line, holding: Holding, folder: Path | None, shards: bool) -> None:
        self.rank, self.holding, self.folder, self._shards = holding.rank, holding, folder, shards
        self.mail = Mail()
        self.failure = ""  # of the store, in a line
        self.dropped = 0
        self.relayed: set[int] = set()  # ranks whose records came here
        self._line, self._merging = line, Merging(holding)
        self._copying: bool | None = None if folder is not None else False  # whether all must be sent
        self._leads, self._left = self.rank == 0, False
        self._outgoing: deque[Record] = deque()
        self._alarms: deque[Alarm] = deque()
        self._sent: deque[tuple[str, list[Record]]] = deque()  # messages that may lie unread
        self._inbox, self._calls = Channel("inbox"), Channel("alarms")
        self._stores: dict[int, Store] = {}
        self._marker = None if folder is None else folder / f".ranks-{uuid.uuid4().hex[:12]}"
        self._stop, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="unvanish-ranks", daemon=True)
        self._thread.start()

    # -- the training's thread

    def put(self, table: str, row: tuple[Any, ...]) -> None:
        """Take one row, if anybody else needs it; never waits."""
        if self.failure or self._closed or not self._is_wanted(table):
            return
        if len(self._outgoing) >= WAITING and table != "findings":
            self.dropped += 1
            return
        self._outgoing.append((table, row))

    def announce(self, step: int, act: int, finding: Finding) -> None:
        """Make every rank act on a finding of ours."""
        self._alarms.append(Alarm(self.rank, step, act, finding))

    @property
    def speaks(self) -> bool:
        """Whether findings are told on this rank: on the first one, or if that one does not watch."""
        return self.rank == 0 or not self._leads or self._left or bool(self.failure)

    def close(self) -> list[RankFinding]:
        """Send what waits and end; our findings that reached nobody. Harmless when repeated."""
        if self._closed:
            return []
        self._closed = True
        self._stop.set()
        self._thread.join(5)
        unheard = [record for _, records in self._sent for record in records] + list(self._outgoing)
        lost = unheard if self.rank != 0 and (self._left or self.failure) else []
        return [_read_finding(self.rank, row) for table, row in lost if table == "findings"]

    def _is_wanted(self, table: str) -> bool:
        if self.rank == 0:
            return self._shards and table in ("sites", "meta", "steps", "samples")
        return table == "findings" or self._copying is not False or (self._shards and table != "profiles")

    # -- the thread

    def _work(self) -> None:
        try:
            if self.rank == 0:
                self._lead()
            while not self._stop.wait(PAUSE):
                self._talk()
            self._talk()
            self._line.write("left" if self.rank == 0 else f"left/{self.rank}", True)
        except Exception as error:
            self.failure = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
        finally:
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
        while self._outgoing and len(self._sent) < BLOCKS and not self._left:
            count = min(BLOCK, len(self._outgoing))
            block = [r for r in (self._outgoing.popleft() for _ in range(count)) if self._is_wanted(r[0])]
            if block:
                self._sent.append((self._line.post("inbox", self._pack(block)), block))

    def _pack(self, records: Sequence[Record]) -> dict[str, Any]:
        h = self.holding
        about = {"rank": h.rank, "ranks": h.ranks, "layout": h.layout, "shards": h.shards}
        return {**about, "copy": bool(self._copying), "records": [[t, _pack_row(row)] for t, row in records]}

    def _take(self, message: Any) -> None:
        """Records of another rank have come."""
        holding = Holding(
            int(message["rank"]), int(message["ranks"]), str(message["layout"]), int(message["shards"])
        )
        records = [(str(t), _unpack_row(row)) for t, row in message["records"] if t in TABLES]
        self._merging.add(holding, records)
        for table, row in records:
            if table == "findings":
                self.mail.heard.append(_read_finding(holding.rank, row))
            if message["copy"] and self.folder is not None:
                self._store_of(holding.rank).put(table, row)

    def _store_of(self, rank: int) -> Store:
        """The file for what comes from a rank whose folder is not ours."""
        if rank not in self._stores and self.folder is not None:
            self._stores[rank] = Store(self.folder, name=RELAYED.format(rank))
            self.relayed.add(rank)
        return self._stores[rank]


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
