"""Published architectures at their published initialisation: by own compact definitions, and from
transformers.

Notable: a registry of builders; each returns a Subject, small in width and honest in depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Subject:
    """A model with a batch and a loss; the loss is None where the model brings its own."""

    model: nn.Module
    batch: Any
    loss: Callable[..., Any] | None = None


Builder = Callable[[], Subject]


def all_of_them() -> dict[str, Builder]:
    """Every architecture by name; those of transformers only where it is installed."""
    from benchmarks.architectures import convolutional, languages, others

    return {**convolutional.BUILDERS, **others.BUILDERS, **languages.builders()}
