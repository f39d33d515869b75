"""gradsnitch: `watch(model, optimizer)`, `.log` between backward and step, `.report` at the end."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter, quiet
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Gradsnitch(Adapter):
    """Errors and warnings of its rules."""

    TITLE = "gradsnitch"
    REQUIRES = ("gradsnitch==0.1.0",)
    IMPORTS = "gradsnitch"
    CLAIMS: ClassVar = {
        "GS001": "non-finite",
        "GS002|GS003": "exploding",
        "GS006|GS009": "update too large",
        "GS007": "vanishing",
        "GS008.*too high": "update too large",
        "GS008": "update too small",
    }

    def begin(self, trial: Trial) -> None:
        import gradsnitch

        self.monitor: Any = gradsnitch.watch(trial.model, trial.optimizer)

    def before_step(self, step: int, loss: float, trial: Trial) -> None:
        self.monitor.log(step, loss)

    def speak(self, trial: Trial) -> list[Said]:
        with quiet():
            found = self.monitor.report()
        return [self.mean(f"{f.code} {f.name}: {f.evidence}") for f in found]


ADAPTER = Gradsnitch
