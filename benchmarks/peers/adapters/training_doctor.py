"""training-doctor: `Doctor().log(step, loss, lr, grad_norm)` behind every step; warnings and worse."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter, total_norm
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class TrainingDoctor(Adapter):
    """Its default detectors."""

    TITLE = "training-doctor"
    REQUIRES = ("training-doctor==0.1.0",)
    IMPORTS = "training_doctor"
    CLAIMS: ClassVar = {
        "vanish": "vanishing",
        "nan|infinite|non-finite": "non-finite",
        "explo": "exploding",
        "rate.*too high|rate likely too high|instab": "update too large",
        "too low": "update too small",
    }

    def begin(self, trial: Trial) -> None:
        from training_doctor import Doctor

        self.doctor: Any = Doctor()
        self.found: list[Any] = []

    def after_step(self, step: int, loss: float, trial: Trial) -> None:
        lr = trial.optimizer.param_groups[0]["lr"]
        self.found += self.doctor.log(step=step, loss=loss, lr=lr, grad_norm=total_norm(trial))

    def speak(self, trial: Trial) -> list[Said]:
        loud = [d for d in self.found if d.severity.value != "info"]
        return [self.mean(f"{d.problem}: {d.explanation} {'; '.join(map(str, d.evidence))}") for d in loud]


ADAPTER = TrainingDoctor
