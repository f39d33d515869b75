"""Sequence problems: x (B, T, F) to a number (B,), a class (B,), or a symbol at every step (B, T).

The type of the targets decides: mean squared error for real numbers, cross entropy for classes and symbols.
Blank symbols (0) do not count: on the copy task they alone would give an accuracy of 90 % and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unvanish.lab.tasks._losses import SequenceLoss
from unvanish.lab.tasks._metrics import Metrics, View, classification_metrics
from unvanish.lab.tasks.classify import example

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["FITNESS", "HIGHER", "SequenceMetrics", "example", "loss", "metrics"]
FITNESS, HIGHER = "fitness", True


def loss(smoothing: float = 0.0) -> nn.Module:
    """Mean squared error or cross entropy, by the type of the targets."""
    return SequenceLoss(smoothing)


def drop_blanks(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Classes unchanged; symbols (B, T) without the blank ones."""
    if y.ndim == 1:
        return output, y
    kept = y != 0
    return output[kept], y[kept]


def as_numbers(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions in the shape of the targets."""
    return output.reshape(y.shape).float(), y


class SequenceMetrics(Metrics):
    """Accuracy of classes or symbols, or the error of numbers; `fitness` is accuracy or minus the error."""

    def compute(self) -> dict[str, float]:
        """The numbers so far."""
        found = super().compute()
        best = found.get("accuracy", -found["mse"] if "mse" in found else None)
        return found if best is None else found | {"fitness": best}


def metrics(facts: Mapping[str, Any], decode: Callable[[list[int]], str] | None = None) -> Metrics:
    """For classes (`facts["classes"]`): accuracy and related metrics; for real targets: mse and mae."""
    if "classes" in facts:
        return SequenceMetrics(classification_metrics(int(facts["classes"]), drop_blanks))
    return SequenceMetrics(error_metrics())


def error_metrics() -> dict[str, tuple[Metric, View]]:
    """Mean squared and mean absolute error."""
    from torchmetrics import MeanAbsoluteError, MeanSquaredError

    return {"mse": (MeanSquaredError(), as_numbers), "mae": (MeanAbsoluteError(), as_numbers)}
