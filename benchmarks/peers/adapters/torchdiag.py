"""torchdiag: three calls: dead neurons on the input, one verified step, the gradients behind it."""

from __future__ import annotations

import re
from typing import ClassVar

from benchmarks.peers.adapter import Adapter, quiet
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Torchdiag(Adapter):
    """What its calls list as issues; models that take no single tensor get `check_gradients` alone."""

    TITLE = "torchdiag"
    REQUIRES = ("torchdiag==0.1.0",)
    IMPORTS = "torchdiag"
    USED = "one call"
    CLAIMS: ClassVar = {
        r"max 0\.00e": "no gradient",
        "vanishing": "vanishing",
        "exploding": "exploding",
        "disconnected": "no gradient",
        "none gradients": "no gradient",
        "neurons dead": "dead units",
        "not finite": "non-finite",
        "no parameters changed": "does not move",
    }

    def examine(self, trial: Trial, steps: int) -> list[Said]:
        import torch
        import torchdiag

        with quiet() as text:
            if isinstance(trial.batch, tuple) and isinstance(trial.batch[0], torch.Tensor) and trial.loss:
                x, y = trial.batch
                torchdiag.check_dead_neurons(trial.model, x)
                torchdiag.verify_step(trial.model, trial.optimizer, trial.loss, x, y)
            else:
                loss, _ = trial.objective()
                loss.backward()
            torchdiag.check_gradients(trial.model)
        issues = re.findall(r"^  \u2022 (.*)$", text.getvalue(), re.M)
        return [self.mean(line, line.partition(":")[0]) for line in issues]


ADAPTER = Torchdiag
