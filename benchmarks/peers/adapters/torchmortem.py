"""torchmortem: a context around the loop with `.step(loss=...)` behind each step; warnings and worse."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Torchmortem(Adapter):
    """Default sampling, as its quick start has it."""

    TITLE = "torchmortem"
    REQUIRES = ("torchmortem==0.1.1",)
    IMPORTS = "torchmortem"
    CLAIMS: ClassVar = {
        "stalling": "no gradient",
        "vanishing": "vanishing",
        "exploding": "exploding",
        "dead units": "dead units",
        "saturation": "saturation",
        "update ratio too low": "update too small",
        "update ratio too high": "update too large",
        "rank collapse": "collapse",
        "weight norm explosion": "exploding",
        "weight norm imbalance": "initialisation",
        "divergence": "update too large",
        "stagnant weight norms": "does not move",
    }

    def begin(self, trial: Trial) -> None:
        from torchmortem import Autopsy

        self.autopsy: Any = Autopsy(trial.model, optimizer=trial.optimizer)
        self.autopsy.attach()

    def after_step(self, step: int, loss: float, trial: Trial) -> None:
        self.autopsy.step(loss=loss)

    def speak(self, trial: Trial) -> list[Said]:
        from torchmortem.types import Severity

        self.autopsy.detach()
        report = self.autopsy.get_report()
        loud = [f for f in report.findings if f.severity >= Severity.WARNING]
        return [self.mean(f"{f.title}: {f.summary}", *f.affected_layers) for f in loud]

    def end(self) -> None:
        if hasattr(self, "autopsy"):
            self.autopsy.detach()


ADAPTER = Torchmortem
