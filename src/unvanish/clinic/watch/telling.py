"""The rows of a run's record, told to a sink: numbers as people read them, each finding once.

Notable: norms are numbers and no logs; of many layers an even share is told, as nobody reads hundreds of
curves.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.core.bounds import parse_json
from unvanish.core.sink import Sink, SinkRow
from unvanish.core.trace import Site
from unvanish.store import Run
from unvanish.store.parts import read_axis, read_finding, read_site
from unvanish.store.records import Record
from unvanish.store.schema import STEP_COLUMNS

LAYERS = 64  # that are told of a look, evenly spread over the depth
BLOCK = 512  # steps of a finished run at a time
MEASURES = {"gradient_log": "gradient", "update_log": "update"}
LARGEST = math.log(sys.float_info.max)


@dataclass
class Teller:
    """Tells a sink what the records of a run hold; `rate` rows a second at most, None: all.

    `told`: the last step. `left`: how many rows were left out.
    """

    sink: Sink
    rate: float | None = None
    told: int = -1
    left: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    sites: dict[int, Site] = field(default_factory=dict)
    findings: set[tuple[str, str]] = field(default_factory=set)  # code and severity
    _due: float = field(default=-math.inf, init=False)  # when the next row may be told

    def tell(self, records: Iterable[Record]) -> None:
        """Tell what these records hold."""
        steps, looks, found = [], [], []
        for table, row in records:
            if table == "meta":
                self.facts[row[0]] = parse_json(row[1], deepest=30)
            elif table == "sites":
                self.sites[row[0]] = read_site(*row[1:])
            elif table == "steps":
                steps.append(read_row(row))
            elif table == "samples":
                looks.append(row)
            elif table == "findings":
                found.append(row)
        if chosen := [row for row in steps if self._is_due(row)]:
            self.sink.steps(chosen)
        times = {row.step: row.time for row in steps} if looks else {}
        for step, cells in looks:
            self.tell_look(step, np.frombuffer(cells, np.float32), times.get(step, math.nan))
        for row in found:
            self._tell_finding(row[1], row[5])

    def _is_due(self, row: SinkRow) -> bool:
        """Whether a row is told: all that are not finite, and the others as `rate` allows."""
        self.told = max(self.told, row.step)
        usual = len(row.finite_values) == len(row.values)
        if self.rate is None or not usual or row.time >= self._due:
            self._due = row.time + (1 / self.rate if self.rate else 0.0)
            return True
        self.left += 1
        return False

    def tell_look(self, step: int, cells: NDArray[Any], time: float) -> None:
        """Tell a look: all statistics of all sites in one row, shape (sites * statistics,)."""
        count = self.facts.get("site_count", 0)
        if not count or cells.size % count or len(self.sites) < count:
            return  # of a network that has changed since
        table = cells.reshape(count, -1).astype(np.float64)
        at = {name: k for k, name in enumerate(self.facts["statistics"][: table.shape[1]])}
        values = dict(self._list_layers(table, at))
        if not math.isnan(flow := self._measure_flow(table, at)):
            values["flow_decades"] = flow
        if values:
            self.sink.look(SinkRow(step, time, values))

    def _list_layers(self, table: NDArray[Any], at: Mapping[str, int]) -> Iterable[tuple[str, float]]:
        """The gradient and the relative step of each layer."""
        places = [i for i in range(len(table)) if self.sites[i].role == "parameter"]
        chosen = np.linspace(0, len(places) - 1, min(len(places), LAYERS)).round().astype(int)
        for i in (places[k] for k in np.unique(chosen)):
            for statistic, title in MEASURES.items():
                if statistic in at and not math.isnan(value := table[i, at[statistic]]):
                    yield f"{title}/{self.sites[i].path or 'model'}", undo_log(value)

    def _measure_flow(self, table: NDArray[Any], at: Mapping[str, int]) -> float:
        """Log10 of the gradient at the input over that at the loss; NaN if one is unknown, or zero."""
        axes = [read_axis(axis, len(table)) for axis in self.facts.get("axes", ())]
        depth = next((axis.sites for axis in axes if axis.kind == "depth" and axis.sites), None)
        if depth is None or "backward_log" not in at:
            return math.nan
        gain = float(table[depth[-1], at["backward_log"]]) - float(table[depth[0], at["backward_log"]])
        return gain / math.log(10) if math.isfinite(gain) else math.nan

    def _tell_finding(self, first: int, body: str) -> None:
        finding = read_finding(body)
        if (key := (finding.code, finding.severity)) not in self.findings:
            self.findings.add(key)
            self.sink.finding(first, finding)


def read_row(row: Sequence[Any]) -> SinkRow:
    """A row of the table `steps` as a sink takes it."""
    known = {n: math.nan if v is None else float(v) for n, v in zip(STEP_COLUMNS, row, strict=True)}
    finite = known["finite"] == 1
    values = {"finite": known["finite"], "skipped": known["skipped"]}
    for name, value in (
        ("loss", known["loss"]),
        ("gradient_norm", undo_log(known["norm_log"])),
        ("gradient_norm_before_clipping", undo_log(known["before_log"])),
        ("lr", known["lr"]),
        ("clipped", known["clipped"]),
    ):
        broken = not finite and name in ("loss", "gradient_norm")  # else NaN: not measured
        if broken or not math.isnan(value):
            values[name] = value
    return SinkRow(int(known["step"]), known["wall"], values)


def undo_log(value: float) -> float:
    """The number whose natural log this is; inf if it is too large for one."""
    return math.exp(value) if value <= LARGEST or math.isnan(value) else math.inf


def retell(run: Run, sink: Sink) -> int:
    """Tell a sink a whole run that was recorded; how many steps it has. StoreError if it cannot be read."""
    teller = Teller(sink, facts=dict(run.facts()), sites=dict(enumerate(run.sites())))
    columns = run.steps()
    table = np.stack([columns[name] for name in STEP_COLUMNS], 1)  # type: ignore[literal-required]
    times = dict(zip(table[:, 0].astype(int).tolist(), table[:, 1].tolist(), strict=True))
    for low in range(0, len(table), BLOCK):
        teller.tell(("steps", tuple(row)) for row in table[low : low + BLOCK].tolist())
    count, statistics = len(teller.sites), len(teller.facts.get("statistics", ()))
    for step in run.sample_steps():
        cells = run.cells(np.array([step], np.int64), count, statistics)[0]
        teller.tell_look(int(step), cells, times.get(int(step), math.nan))
    for event in run.findings():
        sink.finding(event.first, event.finding)
    return len(table)
