"""The errors of a training, and the check that its libraries are installed."""

from __future__ import annotations

import importlib.util

EXTRA = ("accelerate", "safetensors", "torchmetrics")


class TrainError(ValueError):
    """A training cannot start or continue; the text says why and what to do."""


class Diverged(TrainError):
    """Too many steps in a row were not finite; the text carries the watch's verdict."""


def require() -> None:
    """TrainError if the extra `train` is not installed."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainError(
            f"training needs the extra: pip install 'unvanish[train]' (not installed: {', '.join(missing)})"
        )
