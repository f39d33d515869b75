"""JSON lines: a file that grows by a line for each step, look and finding, for any program to read.

Notable: a line is an object with `kind` ("open", "step", "look", "finding", "close"); numbers that are not
finite are the strings "nan", "inf" and "-inf". An existing file is continued.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unvanish.core.diagnosis import Finding
from unvanish.core.plain import plain
from unvanish.core.sink import Sink, SinkRow
from unvanish.store.files import append_text

ADOPTS = ()
USUAL = "unvanish.jsonl"


class JsonLinesSink(Sink):
    """Appends lines to the file after the colon (unvanish.jsonl, in the run's folder if it has one).

    OSError if the path is no regular file, or its folder cannot be made.
    """

    rate = None

    def __init__(self, place: str = "") -> None:
        self.path = Path(place) if place else None

    def open(self, about: Mapping[str, Any]) -> None:
        if self.path is None:
            self.path = Path(about.get("folder") or ".") / USUAL
        self.path = self.path.absolute()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write([{"kind": "open", "name": about.get("name"), "model": about.get("model")}])

    def steps(self, rows: Sequence[SinkRow]) -> None:
        self._write({"kind": "step", "step": r.step, "time": r.time, **r.values} for r in rows)

    def look(self, row: SinkRow) -> None:
        self._write([{"kind": "look", "step": row.step, **row.values}])

    def finding(self, step: int, finding: Finding) -> None:
        self._write([{"kind": "finding", "step": step, **plain(finding)}])

    def close(self) -> None:
        self._write([{"kind": "close"}])

    def _write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        if self.path is not None:
            append_text(self.path, "".join(f"{json.dumps(plain(entry))}\n" for entry in entries))


SINK = JsonLinesSink
