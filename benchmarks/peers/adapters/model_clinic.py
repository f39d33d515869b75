"""model-clinic: its training monitor behind every step; warnings and errors."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class ModelClinic(Adapter):
    """All of its alerts."""

    TITLE = "model-clinic"
    REQUIRES = ("model-clinic==0.4.2",)
    IMPORTS = "model_clinic"
    CLAIMS: ClassVar = {
        "nan|inf": "non-finite",
        "gradient_explosion|explo": "exploding",
        "vanish": "vanishing",
        "death|dead": "dead units",
        "collapse": "collapse",
        "spike|diverge": "update too large",
    }

    def begin(self, trial: Trial) -> None:
        from model_clinic import ClinicMonitor

        self.monitor: Any = ClinicMonitor(trial.model)
        self.alerts: list[Any] = []

    def after_step(self, step: int, loss: float, trial: Trial) -> None:
        self.alerts += self.monitor.step(step, loss=loss) or []

    def speak(self, trial: Trial) -> list[Said]:
        known = {name for name, _ in trial.model.named_modules() if name}
        words = {f"{a.condition}: {a.message}" for a in self.alerts if a.severity in ("WARN", "ERROR")}
        return [self.mean(text, *(known & set(text.replace("'", " ").split()))) for text in sorted(words)]

    def end(self) -> None:
        if hasattr(self, "monitor"):
            self.monitor.summary()  # which takes its hooks off


ADAPTER = ModelClinic
