"""Metrics with one interface: update with a batch, compute numbers and tables, reset; torchmetrics counts.

Notable:
- With several processes, torchmetrics itself sums its counts over all of them.
- Numbers (`compute`) are floats for a row of results; tables (`tables`) are tensors such as a confusion
  matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from torchmetrics import Metric

View = Callable[[Tensor, Tensor], tuple[Tensor, Tensor] | None]


def as_they_are(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Output and target unchanged."""
    return output, y


class Metrics:
    """Named metrics of one task; each gets output and target through its own view."""

    decodes = False  # whether `observe` does something

    def __init__(self, parts: Mapping[str, tuple[Metric, View]]) -> None:
        self.parts = dict(parts)

    def update(self, output: Any, y: Any) -> None:
        """Count one batch: the model's output and its targets, as for the task's loss."""
        output, y = output.detach(), y.detach()
        for name, (metric, view) in self.parts.items():
            if metric.device != output.device:
                self.parts[name] = (metric.to(output.device), view)
            seen = view(output, y)
            if seen is not None and seen[1].numel():
                metric.update(*seen)

    def observe(self, net: nn.Module, x: Any, y: Any) -> None:
        """Let the network generate whole answers for a batch, if a metric needs them."""

    def compute(self) -> dict[str, float]:
        """Every number so far; a metric without a batch is left out."""
        values = {name: metric.compute() for name, (metric, _) in self._updated().items()}
        return {name: float(v) for name, v in values.items() if v.ndim == 0}

    def tables(self) -> dict[str, Tensor]:
        """Every result that is more than a number: `confusion` (classes, classes), rows are the truth."""
        values = {name: metric.compute() for name, (metric, _) in self._updated().items()}
        return {name: v.cpu() for name, v in values.items() if v.ndim > 0}

    def _updated(self) -> dict[str, tuple[Metric, View]]:
        """The metrics that have counted at least one batch."""
        return {name: part for name, part in self.parts.items() if part[0].update_called}

    def reset(self) -> None:
        """Forget all batches."""
        for metric, _ in self.parts.values():
            metric.reset()


def classification_metrics(classes: int, view: View = as_they_are) -> dict[str, tuple[Metric, View]]:
    """Accuracy, top-5 accuracy for more than five classes, macro F1, confusion matrix."""
    from torchmetrics.classification import (
        MulticlassAccuracy,
        MulticlassConfusionMatrix,
        MulticlassF1Score,
    )

    plain: Any = {"num_classes": classes, "validate_args": False}
    parts: dict[str, tuple[Metric, View]] = {
        "accuracy": (MulticlassAccuracy(average="micro", **plain), view),
        "f1": (MulticlassF1Score(average="macro", **plain), view),
        "confusion": (MulticlassConfusionMatrix(**plain), view),
    }
    if classes > 5:
        parts["top5"] = (MulticlassAccuracy(average="micro", top_k=5, **plain), view)
    return parts
