"""Trackio: `to="trackio"`, in the run that is open, or in one of its own.

Notable: a row has its own step, so the steps of your own rows stay; Trackio counts on from the highest one if
you log without a step.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import trackio
from trackio import context_vars

from unvanish.core.diagnosis import Finding
from unvanish.core.sink import PREFIX, Sink, SinkRow

LIBRARIES = ("PIL",)
ADOPTS = ("Run",)


class TrackioSink(Sink):
    """Logs into the run that is given or open; else into a new one, in the project after the colon.

    Without a name after the colon that is "unvanish".
    """

    def __init__(self, given: Any = "") -> None:
        self._project = given if isinstance(given, str) else ""
        self._run: Any = context_vars.current_run.get() if isinstance(given, str) else given
        self._owns = self._run is None
        self._prefix = PREFIX

    def open(self, about: Mapping[str, Any]) -> None:
        self._prefix = about.get("prefix", PREFIX)
        if self._owns:
            config = {key: str(value) for key, value in about.items() if value is not None}
            self._run = trackio.init(self._project or PREFIX, config=config, embed=False)

    def steps(self, rows: Sequence[SinkRow]) -> None:
        for row in rows:
            self.look(row)

    def look(self, row: SinkRow) -> None:
        self._run.log({f"{self._prefix}/{name}": value for name, value in row.values.items()}, step=row.step)

    def finding(self, step: int, finding: Finding) -> None:
        title = f"{finding.severity}[{finding.code}] {finding.name} at step {step}"
        level = {"error": trackio.AlertLevel.ERROR, "warning": trackio.AlertLevel.WARN}
        self._run.alert(title, finding.cause, level.get(finding.severity, trackio.AlertLevel.INFO), step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        try:
            from PIL import Image
        except ImportError:
            return
        self._run.log({f"{self._prefix}/{name}": trackio.Image(Image.open(io.BytesIO(png)))}, step=step)

    def close(self) -> None:
        if self._owns and self._run is not None:
            self._run.finish()


SINK = TrackioSink
