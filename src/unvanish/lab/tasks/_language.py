"""Metrics of next-token prediction: perplexity and token accuracy, padding left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from unvanish.lab.tasks._metrics import View
from unvanish.lab.tasks._tokens import PAD

if TYPE_CHECKING:
    from torchmetrics import Metric


def tokens(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, T, V) and ids (B, T) of the positions that are no padding: (N, V) and (N,)."""
    real = y != PAD
    return output[real], y[real]


def in_rows(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The real positions as one row, (1, N, V) and (1, N), in float32."""
    logits, ids = tokens(output, y)
    return logits.float()[None], ids[None]


def next_token(vocabulary: int) -> dict[str, tuple[Metric, View]]:
    """Perplexity (the exponential of nats a token) and the share of tokens predicted right."""
    from torchmetrics.classification import MulticlassAccuracy
    from torchmetrics.text import Perplexity

    accuracy = MulticlassAccuracy(num_classes=vocabulary, average="micro", validate_args=False)
    return {"perplexity": (Perplexity(), in_rows), "token_accuracy": (accuracy, tokens)}
