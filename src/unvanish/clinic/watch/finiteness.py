"""When the gradients of a watched training were last finite, and what was broken when they first were not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unvanish.clinic.watch.steps import CurrentStep
from unvanish.core.run_facts import BrokenFacts
from unvanish.probes.live.updates import Parameters


@dataclass(slots=True)
class Finiteness:
    """The last step with a finite gradient (-1: none yet), and what is known of the first without."""

    last: int = -1
    broken: BrokenFacts | None = None

    def note(self, step: CurrentStep) -> None:
        """A step has been made; a norm that is still on a device is not waited for."""
        if isinstance(step.norm, float) and math.isfinite(step.norm):
            self.last = step.number

    def record_break(self, step: CurrentStep, parameters: Parameters) -> bool:
        """Name what is not finite, while it is there; whether this is the first time."""
        if self.broken is not None:
            return False
        self.broken = {
            "step": step.number,
            "last_healthy": self.last,
            "gradients": parameters.find_broken_gradients(),
            "weights": parameters.find_broken_weights(),
            "parameters": len(parameters.parameters),
            "loss": float(step.loss),
            "heard": step.loss is not math.nan,
        }
        return True


def is_broken(number: Any) -> bool:
    """Whether a norm or a loss is known, and not finite; `math.nan` itself stands for one that is not."""
    if isinstance(number, Tensor):
        return number.device.type == "cpu" and not bool(number.isfinite())
    return number is not math.nan and not math.isfinite(number)
