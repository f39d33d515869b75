"""traintools: `GradientHealthMonitor.inspect` behind every backward, with the learning rate."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Traintools(Adapter):
    """Its defaults; without a norm to clip to, since the exam's trainings do not clip."""

    TITLE = "traintools"
    REQUIRES = ("traintools==0.6.2",)
    IMPORTS = "traintools"
    CLAIMS: ClassVar = {
        "non-finite": "non-finite",
        r"vanished \(norm=0\)": "no gradient",
        "vanished": "vanishing",
        "very large": "exploding",
        "ratio is high": "update too large",
        "ratio is tiny": "update too small",
        "no gradients": "no gradient",
    }

    def begin(self, trial: Trial) -> None:
        from traintools import GradientHealthMonitor

        self.monitor: Any = GradientHealthMonitor()
        self.warned: dict[str, str] = {}

    def before_step(self, step: int, loss: float, trial: Trial) -> None:
        report = self.monitor.inspect(trial.model, step=step, lr=trial.optimizer.param_groups[0]["lr"])
        for warning in report.warnings:
            self.warned.setdefault(warning.partition("(")[0], warning)

    def speak(self, trial: Trial) -> list[Said]:
        return [self.mean(warning, warning.split()[0]) for warning in self.warned.values()]


ADAPTER = Traintools
