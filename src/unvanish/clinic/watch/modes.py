"""In which mode a watched training's model is when its optimizer steps.

Notable: `model.eval()` before a validation and no `model.train()` after it change nothing that a loop
prints.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unvanish.clinic.watch.watched import Watched
from unvanish.core.run_facts import ModeFacts
from unvanish.probes.layers import name_modules

NORMS = (nn.modules.batchnorm._NormBase,)
DROPOUTS = (nn.modules.dropout._DropoutNd,)
NAMED = 12  # normalisations that are named


class Modes:
    """Asks for the mode at some steps; `facts`: what is known of it."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._trained = False  # whether a step was made in training mode
        self.facts: ModeFacts | None = None

    def note(self, step: int) -> None:
        """An optimizer is about to make this step."""
        if self._watched.inner.training:
            self._trained = True
            self.facts = None
            return
        before, modules = self.facts, list(name_modules(self._watched.inner))
        norms = [(name, m) for name, m in modules if isinstance(m, NORMS) and _uses_running(m)]
        drops = sum(_rests(m) for _, m in modules)
        self.facts = {
            "since": step if before is None else before["since"],
            "times": 1 if before is None else before["times"] + 1,
            "turned": self._trained,
            "norms": [name for name, _ in norms][:NAMED],
            "fresh": [name for name, m in norms if _is_fresh(m)][:NAMED],
            "dropouts": drops,
        }


def _uses_running(module: Any) -> bool:
    return not module.training and module.running_mean is not None


def _is_fresh(module: Any) -> bool:
    """Whether the running statistics are what they begin with."""
    with torch.no_grad():
        return bool((module.running_mean == 0).all()) and bool((module.running_var == 1).all())


def _rests(module: nn.Module) -> bool:
    """Whether a module would drop something if it were in training mode."""
    if module.training:
        return False
    rate = module.p if isinstance(module, DROPOUTS) else getattr(module, "dropout", 0.0)
    return isinstance(rate, float) and rate > 0
