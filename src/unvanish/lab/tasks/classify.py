"""Classification of images: x (B, C, H, W) to logits (B, classes).

The loss is cross entropy; accuracy decides. With more than five classes top-5 accuracy is reported too. Label
smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn, randint, randn

from unvanish.lab.tasks._metrics import Metrics, classification_metrics

FITNESS, HIGHER = "accuracy", True


def loss(smoothing: float = 0.0) -> nn.Module:
    """Cross entropy of logits (B, classes) against classes (B,), in nats."""
    return nn.CrossEntropyLoss(label_smoothing=smoothing)


def metrics(facts: Mapping[str, Any], decode: Callable[[list[int]], str] | None = None) -> Metrics:
    """Accuracy, top-5, macro F1 and the confusion matrix."""
    return Metrics(classification_metrics(int(facts["classes"])))


def example(facts: Mapping[str, Any], generator: Any) -> tuple[Tensor, Tensor]:
    """Random logits (12, classes) and classes (12,)."""
    classes = int(facts["classes"])
    return randn(12, classes, generator=generator), randint(classes, (12,), generator=generator)
