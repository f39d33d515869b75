"""Sequence problems: x (B, T, F) to a number (B,), a class (B,), or a symbol at every step (B, T).

The targets say which: real numbers are compared by mean squared error, classes and symbols by cross entropy.
Of symbols, those that are not blank (0) count: on the copy task the blanks alone would give an accuracy of
90 % and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unvanish.lab.tasks._losses import SequenceLoss
from unvanish.lab.tasks._metrics import Metrics, View, classification

if TYPE_CHECKING:
    from torchmetrics import Metric

FITNESS, HIGHER = "fitness", True


def loss(smoothing: float = 0.0) -> nn.Module:
    """Mean squared error or cross entropy, as the targets ask."""
    return SequenceLoss(smoothing)


def recalled(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Classes as they are; of symbols (B, T) those that are not blank."""
    if y.ndim == 1:
        return output, y
    kept = y != 0
    return output[kept], y[kept]


def numbers(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
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
    """For classes (`facts["classes"]`): accuracy and its kin; for real targets: mse and mae."""
    if "classes" in facts:
        return SequenceMetrics(classification(int(facts["classes"]), recalled))
    return SequenceMetrics(errors())


def errors() -> dict[str, tuple[Metric, View]]:
    """Mean squared and mean absolute error."""
    from torchmetrics import MeanAbsoluteError, MeanSquaredError

    return {"mse": (MeanSquaredError(), numbers), "mae": (MeanAbsoluteError(), numbers)}
