"""trainpulse: loss, norm of the gradients and rate logged at every step; warnings and worse of its report."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter, total_norm
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Trainpulse(Adapter):
    """Its default thresholds; alarms on slow steps are left out: that is the machine."""

    TITLE = "trainpulse"
    REQUIRES = ("trainpulse==0.4.0",)
    IMPORTS = "trainpulse"
    CLAIMS: ClassVar = {
        "is nan|is inf": "non-finite",
        "explosion": "exploding",
        "vanishing": "vanishing",
        "spike": "update too large",
    }

    def begin(self, trial: Trial) -> None:
        from trainpulse import Monitor

        self.monitor: Any = Monitor()

    def after_step(self, step: int, loss: float, trial: Trial) -> None:
        self.monitor.log("loss", step, loss)
        self.monitor.log("grad_norm", step, total_norm(trial))
        self.monitor.log("learning_rate", step, trial.optimizer.param_groups[0]["lr"])

    def speak(self, trial: Trial) -> list[Said]:
        loud = [a for a in self.monitor.report().alerts if a.severity.value != "info"]
        words = {a.message.partition(":")[0]: a.message for a in loud if "Slow step" not in a.message}
        return [self.mean(message) for message in words.values()]


ADAPTER = Trainpulse
