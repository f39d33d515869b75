"""Lightning's proposed `GradientStatsMonitor` (pull request 21596): its rule, since no release has it."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.peers.adapter import Adapter, total_norm
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said

LARGE = 1e3  # of the norm of all gradients; 1e4 in the request that follows it (21720)


class LightningRule(Adapter):
    """The one warning that it gives; the rest is logged for people to look at."""

    TITLE = "Lightning's GradientStatsMonitor (its rule)"
    CLAIMS: ClassVar = {"very high": "exploding"}

    def begin(self, trial: Trial) -> None:
        self.highest = 0.0

    def after_step(self, step: int, loss: float, trial: Trial) -> None:
        norm = total_norm(trial)
        flat = [p.grad.reshape(-1) for p in trial.model.parameters() if p.grad is not None]
        if flat:  # what it logs at every step
            for gradient in flat:
                _ = gradient.float().mean(), gradient.float().std(), (gradient.abs() < 1e-6).float().mean()
        self.highest = max(self.highest, norm)

    def speak(self, trial: Trial) -> list[Said]:
        told = f"Gradient norm is very high ({self.highest:.2f}). Possible exploding gradients."
        return [self.mean(told)] if self.highest > LARGE else []


ADAPTER = LightningRule
