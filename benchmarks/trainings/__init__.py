"""Small trainings as they are published, one idea a file; each learns what it is about within seconds."""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks.trainings.basis import TRAININGS, Learned, Open, Training

__all__ = ["TRAININGS", "Learned", "Open", "Training", "load"]


def load() -> dict[str, Training]:
    """Every training by its name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return TRAININGS
