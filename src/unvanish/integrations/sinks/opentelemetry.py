"""OpenTelemetry: `to="opentelemetry"`, metrics of the meter provider that the process has set.

Notable:
- Gauges hold the last step ("unvanish.loss", "unvanish.gradient_norm" ...); counters count steps, steps that
  are not finite, and findings by code. The name of the watch is the attribute "watch".
- Where they go is the provider's business: OTLP, the console, or Prometheus through its reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import metrics

from unvanish.core.diagnosis import Finding
from unvanish.core.sink import PREFIX, Sink, SinkRow
from unvanish.core.version import __version__

ADOPTS = ("MeterProvider",)


class OpenTelemetrySink(Sink):
    """Sets gauges and counters of the global meter provider, or of the one that is given."""

    rate = None

    def __init__(self, given: Any = "") -> None:
        provider = None if isinstance(given, str) else given
        meter = metrics.get_meter(PREFIX, __version__, meter_provider=provider)
        self._meter = meter
        self._gauges: dict[str, Any] = {}
        self._steps = meter.create_counter(f"{PREFIX}.steps", description="steps that were watched")
        self._broken = meter.create_counter(
            f"{PREFIX}.steps_not_finite", description="steps whose gradient is not finite"
        )
        self._findings = meter.create_counter(f"{PREFIX}.findings", description="what was found, by code")
        self._about: dict[str, str] = {}

    def open(self, about: Mapping[str, Any]) -> None:
        self._about = {"watch": str(about.get("name") or about.get("model"))}

    def steps(self, rows: Sequence[SinkRow]) -> None:
        self._steps.add(len(rows), self._about)
        if broken := sum(row.values.get("finite") == 0 for row in rows):
            self._broken.add(broken, self._about)
        self._set("step", rows[-1].step)
        for name, value in rows[-1].values.items():
            self._set(name, value)

    def look(self, row: SinkRow) -> None:
        for name, value in row.values.items():
            kind, _, layer = name.partition("/")
            self._set(kind, value, **({"layer": layer} if layer else {}))

    def finding(self, step: int, finding: Finding) -> None:
        self._findings.add(1, {**self._about, "code": finding.code, "severity": finding.severity})

    def _set(self, name: str, value: float, **more: str) -> None:
        if name not in self._gauges:
            self._gauges[name] = self._meter.create_gauge(f"{PREFIX}.{name}")
        self._gauges[name].set(value, {**self._about, **more})


SINK = OpenTelemetrySink
