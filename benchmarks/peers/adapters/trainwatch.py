"""TrainWatch: `Watcher().step(loss=...)` behind every step; what it prints as a warning."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter, quiet
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Trainwatch(Adapter):
    """It speaks of the loss's variance; its other two warnings are about the GPU."""

    TITLE = "TrainWatch"
    REQUIRES = ("trainwatch==0.1.0",)
    IMPORTS = "trainwatch"
    CLAIMS: ClassVar = {"variance": "update too large"}

    def begin(self, trial: Trial) -> None:
        from trainwatch import Watcher

        with quiet():
            self.watcher: Any = Watcher(show_gpu=False)
        self.warned: set[str] = set()

    def after_step(self, step: int, loss: float, trial: Trial) -> None:
        with quiet() as text:
            self.watcher.step(loss=loss)
        self.warned.update(line.strip() for line in text.getvalue().splitlines() if "WARNING" in line)

    def speak(self, trial: Trial) -> list[Said]:
        return [self.mean(line) for line in sorted(self.warned)]


ADAPTER = Trainwatch
