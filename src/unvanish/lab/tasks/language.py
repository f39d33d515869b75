"""Language modelling: token ids (B, T) to logits (B, T, V) of the token that follows each.

The loss is cross entropy in nats per token, without padding; perplexity, its exponential, decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from unvanish.lab.tasks._language import draw_predictions, next_token_metrics
from unvanish.lab.tasks._losses import TokenCrossEntropy
from unvanish.lab.tasks._metrics import Metrics

FITNESS, HIGHER = "perplexity", False


def loss(smoothing: float = 0.0) -> nn.Module:
    """Cross entropy of logits (B, T, V) against ids (B, T), without padding."""
    return TokenCrossEntropy(smoothing)


def metrics(facts: Mapping[str, Any], decode: Callable[[list[int]], str] | None = None) -> Metrics:
    """Perplexity and token accuracy."""
    return Metrics(next_token_metrics(int(facts["vocabulary"])))


def example(facts: Mapping[str, Any], generator: Any) -> tuple[Tensor, Tensor]:
    """Random logits (4, 9, V) and ids (4, 9)."""
    return draw_predictions(int(facts["vocabulary"]), generator)
