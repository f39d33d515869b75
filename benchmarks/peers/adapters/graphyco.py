"""graphyco: `LiveTrainingDiagnostics.observe_step` around every step; the alerts of its snapshot."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Graphyco(Adapter):
    """Its default thresholds."""

    TITLE = "graphyco"
    REQUIRES = ("graphyco==0.1.2",)
    IMPORTS = "graphyco"
    CLAIMS: ClassVar = {
        "nan or inf": "non-finite",
        "exploding": "exploding",
        "vanishing": "vanishing",
        "dead|zero": "dead units",
    }

    def begin(self, trial: Trial) -> None:
        from graphyco import LiveTrainingDiagnostics

        self.tool: Any = LiveTrainingDiagnostics(trial.model)

    def one_step(self, step: int, trial: Trial) -> float:
        with self.tool.observe_step(step):
            return super().one_step(step, trial)

    def speak(self, trial: Trial) -> list[Said]:
        known = {name for name, _ in trial.model.named_modules() if name}
        words = {alert["message"] for alert in self.tool.get_snapshot()["alerts"]}
        return [self.mean(text, *(known & set(text.replace(",", " ").split()))) for text in sorted(words)]


ADAPTER = Graphyco
