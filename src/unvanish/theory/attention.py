"""Attention at initialisation: its entropy, the similarity of its outputs, and the queries' gradient.

Notable:
- Random queries and keys give logits of variance s = q_q q_k (scaled by 1/sqrt(d)); with T tokens the weights
  have sum p^2 about exp(s)/T and entropy ln T - s/2 while s is well below ln T; beyond that a few keys take
  nearly all (the random-energy model of Derrida 1981). The means here are over fixed random draws, which are
  valid for any s.
- Every output is nearly the mean of the values: the difference between tokens shrinks by exp(s)/T per layer,
  and only the skip keeps it (Dong et al. 2021; Noci et al. 2022). Queries and keys get their gradient only
  through differences of keys and values: as tokens become alike, it vanishes with the square of the
  difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class AttentionWeights:
    """Softmax weights of T random logits of variance s: mean sum of squares, mean entropy in nats."""

    squares: float
    entropy: float


def weights(tokens: int, variance: float) -> AttentionWeights:
    """The weights of one query over `tokens` keys, logits ~ N(0, variance); means over fixed random draws."""
    if tokens < 2:
        return AttentionWeights(1.0, 0.0)
    return _weights(tokens, float(f"{variance:.3g}"))


@lru_cache(maxsize=512)
def _weights(tokens: int, variance: float) -> AttentionWeights:
    draws = max(8, min(2000, 60_000 // tokens))
    logits = np.random.default_rng(0).normal(0.0, math.sqrt(variance), (draws, tokens))
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
    return AttentionWeights(float((p**2).sum(1).mean()), float(entropy.mean()))


def mix_values(tokens: int, variance: float, likeness: float) -> tuple[float, float]:
    """Power and token likeness of the outputs, for values of power 1 and cosine `likeness` between tokens.

    An output is sum p v: the common part stays, the rest is divided by the effective number of tokens
    attended to.
    """
    squares = weights(tokens, variance).squares
    power = likeness + (1 - likeness) * squares
    common = likeness + (1 - likeness) / tokens
    return power, min(1.0, common / power) if power > 0 else 1.0
