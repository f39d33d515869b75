"""Metrics of next-token prediction: perplexity and token accuracy, without padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, randint, randn

from unvanish.lab.tasks._metrics import View
from unvanish.lab.tokens import PAD

if TYPE_CHECKING:
    from torchmetrics import Metric


def real_tokens(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, T, V) and ids (B, T) at the positions that are not padding: (N, V) and (N,)."""
    real = y != PAD
    return output[real], y[real]


def as_one_row(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The real positions as one row, (1, N, V) and (1, N), in float32."""
    logits, ids = real_tokens(output, y)
    return logits.float()[None], ids[None]


def next_token_metrics(vocabulary: int) -> dict[str, tuple[Metric, View]]:
    """Perplexity (the exponential of nats per token) and the share of tokens predicted correctly."""
    from torchmetrics.classification import MulticlassAccuracy
    from torchmetrics.text import Perplexity

    accuracy = MulticlassAccuracy(num_classes=vocabulary, average="micro", validate_args=False)
    return {"perplexity": (Perplexity(), as_one_row), "token_accuracy": (accuracy, real_tokens)}


def draw_predictions(vocabulary: int, generator: Any) -> tuple[Tensor, Tensor]:
    """Random logits (4, 9, vocabulary) and ids (4, 9) without padding."""
    logits = randn(4, 9, vocabulary, generator=generator)
    return logits, randint(PAD + 1, vocabulary, (4, 9), generator=generator)
