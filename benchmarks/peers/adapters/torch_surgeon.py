"""torch-surgeon: `Surgeon(model).attach()` before the loop; its alerts as it prints them."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter, quiet
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class TorchSurgeon(Adapter):
    """Its default rules, among them 50 near-zero steps for a stagnant layer."""

    TITLE = "torch-surgeon"
    REQUIRES = ("torch-surgeon==0.1.0",)
    IMPORTS = "torch_surgeon"
    CLAIMS: ClassVar = {"vanishing": "vanishing", "exploding": "exploding", "stagnant": "vanishing"}

    def begin(self, trial: Trial) -> None:
        from torch_surgeon import Surgeon

        self.surgeon: Any = Surgeon(trial.model, rules="default")
        self.surgeon.attach()
        self.text: list[str] = []

    def one_step(self, step: int, trial: Trial) -> float:
        with quiet() as text:
            value = super().one_step(step, trial)
        self.text += [line for line in text.getvalue().splitlines() if "| norm=" in line]
        return value

    def speak(self, trial: Trial) -> list[Said]:
        alerts = {re.split(r"\| norm=", line)[0].split("|", 1)[1].strip() for line in self.text}
        return [self.mean(alert, alert.rpartition("|")[2].strip()) for alert in sorted(alerts)]

    def end(self) -> None:
        if hasattr(self, "surgeon"):
            self.surgeon.detach()


ADAPTER = TorchSurgeon
