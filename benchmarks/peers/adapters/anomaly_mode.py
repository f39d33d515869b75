"""torch's own `detect_anomaly`: the error it raises is what it says."""

from __future__ import annotations

from typing import ClassVar

import torch

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class AnomalyMode(Adapter):
    """Around every step, as its documentation has it."""

    TITLE = "torch.autograd.detect_anomaly"
    CLAIMS: ClassVar = {"nan": "non-finite"}

    def one_step(self, step: int, trial: Trial) -> float:
        with torch.autograd.detect_anomaly():
            return super().one_step(step, trial)

    def caught(self, error: Exception) -> list[Said] | None:
        return [self.mean(str(error))] if "nan values" in str(error) else None


ADAPTER = AnomalyMode
