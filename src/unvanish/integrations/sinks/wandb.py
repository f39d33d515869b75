"""Weights & Biases: `to="wandb"`, in the run that is open, or in one of its own.

Notable:
- In your run nothing may move its step, as W&B drops what is logged at an earlier one: our numbers ride on
  your next `log` (`commit=False`), the last ones of each, over the axis "unvanish/step". All rows, thinned
  out to `ROWS`, are the table "unvanish/steps" at the end.
- Without an open run one is made that is not `wandb.run`, in the project after the colon, with each row as a
  row of its history; your own later `wandb.init` is not touched by it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from unvanish.core.diagnosis import Finding
from unvanish.core.sink import PREFIX, Sink, SinkRow

LIBRARIES = ("PIL",)
ADOPTS = ("Run",)
ROWS = 5000  # of the table


class WandbSink(Sink):
    """Logs into the run that is given or open; else into one in the project after the colon ("unvanish")."""

    def __init__(self, given: Any = "") -> None:
        self._project = given if isinstance(given, str) else ""
        self._run: Any = wandb.run if isinstance(given, str) else given
        self._owns = self._run is None
        self._over = False  # its owner has finished it
        self._rows: list[SinkRow] = []
        self._every = 1
        self._prefix = PREFIX

    def open(self, about: Mapping[str, Any]) -> None:
        self._prefix = about.get("prefix", PREFIX)
        if self._owns:
            self._run = wandb.init(
                project=self._project or PREFIX,
                config={key: value for key, value in about.items() if value is not None},
                reinit="create_new",
                settings=wandb.Settings(console="off"),
            )
        axis = f"{self._prefix}/step"
        self._run.define_metric(axis, hidden=True)
        self._run.define_metric(f"{self._prefix}/*", step_metric=axis)

    def steps(self, rows: Sequence[SinkRow]) -> None:
        for row in rows if self._owns else rows[-1:]:
            self._log(row.step, row.values)
        if not self._owns:
            self._keep(rows)

    def look(self, row: SinkRow) -> None:
        self._log(row.step, row.values)

    def finding(self, step: int, finding: Finding) -> None:
        title = f"{finding.severity}[{finding.code}] {finding.name} at step {step}"
        self._run.summary[f"{self._prefix}/{finding.code}"] = f"{title}: {finding.cause}"
        if finding.severity == "error":
            self._run.alert(title, finding.cause)

    def picture(self, step: int, name: str, png: bytes) -> None:
        try:
            from PIL import Image
        except ImportError:
            return
        self._log(step, {name: wandb.Image(Image.open(io.BytesIO(png)))})

    def close(self) -> None:
        if self._owns and self._run is not None:
            self._run.finish()
        elif self._rows:
            names = sorted({name for row in self._rows for name in row.values})
            table = [[row.step, *(row.values.get(name) for name in names)] for row in self._rows]
            self._log(self._rows[-1].step, {"steps": wandb.Table(["step", *names], table)})

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        """Log values of a step; a run that its owner has finished takes no more, and that is no failure."""
        if self._over:
            return
        named = {f"{self._prefix}/{name}": value for name, value in values.items()}
        try:
            self._run.log({f"{self._prefix}/step": step, **named}, commit=self._owns)
        except wandb.errors.UsageError:
            if self._owns:
                raise
            self._over = True

    def _keep(self, rows: Sequence[SinkRow]) -> None:
        """Keep rows for the table, evenly thinned out; what is not finite stays."""
        for row in rows:
            broken = len(row.finite_values) < len(row.values)
            if broken or row.step % self._every == 0:
                self._rows.append(row)
        while len(self._rows) > ROWS:
            self._every *= 2
            self._rows = [r for r in self._rows if r.step % self._every == 0]


SINK = WandbSink
