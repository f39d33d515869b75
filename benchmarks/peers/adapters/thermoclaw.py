"""thermoclaw: its observer beside the loop, `diagnose` at the end; recommendations called HIGH or MEDIUM."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Thermoclaw(Adapter):
    """The observer alone, as its quick start has it."""

    TITLE = "thermoclaw"
    REQUIRES = ("thermoclaw==0.1.6",)
    IMPORTS = "thermoclaw"
    CLAIMS: ClassVar = {
        "oscillation|unstable|entropy production": "update too large",
        "weight decay": "update too large",
    }

    def begin(self, trial: Trial) -> None:
        from thermoclaw import Observer

        self.observer: Any = Observer(trial.model, trial.optimizer)

    def after_step(self, step: int, loss: float, trial: Trial) -> None:
        self.observer.step(loss=loss)

    def speak(self, trial: Trial) -> list[Said]:
        from thermoclaw import diagnose

        given = diagnose(self.observer).recommendations
        return [self.mean(text) for text in given if text.startswith(("[HIGH]", "[MEDIUM]"))]


ADAPTER = Thermoclaw
