"""MLflow: `to="mlflow"`, in the run that is active, or in one of its own.

Notable:
- The run is written to by its id, through a client of our own: the active run of your thread stays as it is.
- A number that is not finite is left out, as stores change it (inf) or the run's page cannot be drawn (NaN);
  `unvanish.finite` is 0 at its step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mlflow
from mlflow.entities import Metric

from unvanish.core.diagnosis import Finding
from unvanish.core.sink import PREFIX, Sink, SinkRow

ADOPTS = ("ActiveRun", "Run")
MOST = 1000  # metrics of a call
LETTERS = 4000  # of a tag
FORBIDDEN = {ord(letter): "_" for letter in "[](){}<>=,;!?*@#$%^&+\\'\"`~|"}  # in a metric's name


class MlflowSink(Sink):
    """Logs into the run that is given or active; else into a new one, in the experiment after the colon.

    Without a name after the colon that is "unvanish".
    """

    rate = 20.0  # the local store opens a file for each number

    def __init__(self, given: Any = "") -> None:
        self._experiment = given if isinstance(given, str) else ""
        self._given = None if isinstance(given, str) else given
        self._owns = False
        self._run = ""
        self._client: Any = None
        self._prefix = PREFIX

    def open(self, about: Mapping[str, Any]) -> None:
        self._client = mlflow.MlflowClient()
        self._prefix = about.get("prefix", PREFIX).replace("/", ".").translate(FORBIDDEN)
        run = self._given or mlflow.active_run()
        self._owns = run is None
        self._run = self._create(about) if run is None else run.info.run_id
        self._client.set_tag(self._run, f"{self._prefix}.model", str(about.get("model"))[:LETTERS])

    def _create(self, about: Mapping[str, Any]) -> str:
        """A new run; its id."""
        name = self._experiment or PREFIX
        known = self._client.get_experiment_by_name(name)
        place = self._client.create_experiment(name) if known is None else known.experiment_id
        run = self._client.create_run(place, run_name=str(about.get("name") or PREFIX))
        return str(run.info.run_id)

    def steps(self, rows: Sequence[SinkRow]) -> None:
        metrics = [metric for row in rows for metric in self._list_metrics(row)]
        for low in range(0, len(metrics), MOST):
            self._client.log_batch(self._run, metrics=metrics[low : low + MOST])

    def look(self, row: SinkRow) -> None:
        self.steps([row])

    def finding(self, step: int, finding: Finding) -> None:
        text = f"{finding.severity} {finding.name} at step {step}: {finding.cause}"
        self._client.set_tag(self._run, f"{self._prefix}.{finding.code}", text[:LETTERS])

    def close(self) -> None:
        if self._owns:
            self._client.set_terminated(self._run)

    def _list_metrics(self, row: SinkRow) -> Iterator[Metric]:
        moment = int(1000 * (row.time if row.time == row.time else time.time()))
        for name, value in row.finite_values.items():
            yield Metric(f"{self._prefix}.{name.translate(FORBIDDEN)}", value, moment, row.step)


SINK = MlflowSink
