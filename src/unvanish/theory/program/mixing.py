"""Operations that mix positions or tensors: pooling, concatenation, attention."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from unvanish.theory import attention, quadrature
from unvanish.theory.program.signal import ONE, Pull, Signal
from unvanish.theory.program.steps import Step


def average(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Means over positions: their common part stays, the rest is divided by their number."""
    x = given[0]
    before, after = (max(1, math.prod(s)) for s in (step.reads[0], step.makes[0]))
    p = max(1.0, float(step.facts.get("window", before / after)))
    scale = p**2 if step.kind == "sum" else 1.0
    kept, apart = (1 + (p - 1) * x.positions) / p, (x.samples + (p - 1) * x.apart) / p
    same = kept if kept > 0 else 1e-300
    made = Signal(
        np.asarray(x.q * kept * scale),
        min(1.0, apart / same),
        min(1.0, max(x.positions / same, 0.0)),
        min(1.0, x.apart / same),
        x.mean / math.sqrt(same),
    )
    overlap = max(1.0, p * after / before)
    positions = math.prod(step.reads[0][2:]) if "pool" in step.kind else p
    inside = min(1.0, (p - 1) / max(1.0, positions - 1))

    def back(pulls: list[Pull]) -> list[Pull]:
        pull = pulls[0]
        alike = inside + (1 - inside) * pull.alike
        added = 1 + (overlap - 1) * max(0.0, pull.alike)
        return [Pull(pull.log + math.log(scale / p * added), ONE, alike)]

    return [made], back


@lru_cache(maxsize=64)
def _largest(rivals: int, rectified: bool) -> tuple[float, float]:
    """Mean and mean square of the largest of `rivals` standard normals, at least 0 if rectified."""
    z, w = quadrature.nodes()
    below = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    density = rivals * below ** (rivals - 1) * w
    value = np.maximum(z, 0) if rectified else z
    return float(density @ value), float(density @ value**2)


def largest(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Max pooling: the largest of independent values; the gradient goes to the winners."""
    x = given[0]
    rivals = max(1, int(step.facts.get("window", 4)))
    rectified = x.mean > 0.3
    mean, square = _largest(rivals, rectified)
    power = square * x.q * (2.0 if rectified else 1.0)
    made = replace(x, power=np.asarray(power), mean=mean / math.sqrt(square) if square else 0.0)

    def back(pulls: list[Pull]) -> list[Pull]:
        return [replace(pulls[0], share=ONE, winners=rivals)]

    return [made], back


def upsample(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Each position repeated: the gradients of its copies add up."""
    ratio = math.prod(step.makes[0]) / max(1, math.prod(step.reads[0]))

    def back(pulls: list[Pull]) -> list[Pull]:
        p = pulls[0]
        return [replace(p, share=ONE, winners=1).times(1 + (ratio - 1) * max(0.0, p.alike))]

    return [given[0].flat()], back


def concatenation(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Powers weighted by their share of the elements; the gradient is distributed by it."""
    sizes = [max(1, math.prod(s)) for s in step.reads]
    shares = [s / sum(sizes) for s in sizes]
    parts = [g.fit(step.makes[0]) for g in given]
    power: Any = sum(s * g.power for s, g in zip(shares, parts, strict=True))
    q = float(np.mean(power)) or 1e-300

    def mixed(name: str) -> float:
        return float(sum(s * g.q * getattr(g, name) for s, g in zip(shares, parts, strict=True)) / q)

    mean = sum(s * g.mean * math.sqrt(g.q) for s, g in zip(shares, parts, strict=True)) / math.sqrt(q)
    made = Signal(np.asarray(power), mixed("samples"), mixed("positions"), mixed("apart"), mean)
    return [made], lambda pulls: [replace(pulls[0], winners=1).times(s) for s in shares]


def softmax(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Attention weights of Gaussian logits; back: each key's gradient is weighted by its p."""
    tokens = step.makes[0][-1]
    found = attention.weights(tokens, given[0].q)
    power = found.squares / tokens
    mean = 1 / tokens / math.sqrt(power)
    made = Signal(np.asarray(power), mean**2, mean**2, mean**2, mean, squares=found.squares)

    def back(pulls: list[Pull]) -> list[Pull]:
        return [Pull(pulls[0].log + math.log(found.squares / tokens), ONE, 0.0, centred=True)]

    return [made], back


def product(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Products of two activations: scores of queries and keys, or attention weights and values."""
    if len(given) < 2:
        factor = float(np.sum(step.facts.get("taps", 1.0)))
        return [given[0].flat().times(factor)], lambda pulls: [pulls[0].times(factor)]
    a, b = (g.flat() for g in given[:2])
    if a.squares is not None:
        return _mix(a.squares, step.reads[1][-2] if len(step.reads[1]) > 1 else 1, a, b)
    inner = step.reads[0][-1]
    made = Signal(np.asarray(inner * a.q * b.q))

    def back(pulls: list[Pull]) -> list[Pull]:
        p, centred = pulls[0], pulls[0].centred
        one = inner * b.q * ((1 - max(0.0, b.positions)) if centred else 1.0)
        other = inner * a.q
        return [_plain(p).times(one), _plain(p).times(other)]

    return [made], back


def _plain(p: Pull) -> Pull:
    return Pull(p.log, ONE, p.alike)


def _mix(squares: float, tokens: int, weights: Signal | None, v: Signal) -> tuple[list[Signal], Any]:
    s = max(0.0, v.positions)
    kept = s + (1 - s) * squares
    apart = (v.apart + (v.samples - v.apart) / tokens) / max(kept, 1e-300)
    made = Signal(
        np.asarray(v.q * kept),
        min(1.0, max(0.0, apart)),
        min(1.0, (s + (1 - s) / tokens) / max(kept, 1e-300)),
        min(1.0, max(0.0, v.apart) / max(kept, 1e-300)),
        v.mean / math.sqrt(max(kept, 1e-300)),
    )

    def back(pulls: list[Pull]) -> list[Pull]:
        p = pulls[0]
        r = max(0.0, p.alike)
        gain = (1 - r) * squares + r
        alike = min(1.0, (1 / tokens + (1 - 1 / tokens) * r) / gain)
        values = replace(p.times(gain), share=ONE, alike=alike)
        if weights is None:
            return [values]
        return [_plain(p).times(tokens * v.q * (1 - s)), values]

    return [made], back


def dot_product_attention(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Scaled dot-product attention in one call: scores, weights and values."""
    q, k, v = (g.flat() for g in (given * 3 if len(given) == 1 else given)[:3])
    tokens, size = step.reads[-1][-2], step.reads[0][-1]
    scale = float(step.facts.get("scale") or size**-0.5)
    logits = size * q.q * k.q * scale**2
    squares = attention.weights(tokens, logits).squares
    if step.facts.get("causal"):
        some = sorted({max(1, round(tokens * (i + 0.5) / 16)) for i in range(16)})
        squares = sum(attention.weights(t, logits).squares for t in some) / len(some)
    made, mixing = _mix(squares, tokens, None, v)
    spread = max(0.0, 1 - max(0.0, v.positions))

    def back(pulls: list[Pull]) -> list[Pull]:
        p = pulls[0]
        (values,) = mixing(pulls)
        scores = _plain(p).times(max(v.q * spread * squares * scale**2 * size, 1e-300))
        queries = scores.times(max(k.q * (1 - max(0.0, k.positions)), 1e-300))
        keys = scores.times(max(q.q, 1e-300))
        return [queries, keys, values] if len(given) > 1 else [queries.plus(keys).plus(values)]

    return made, back


MIXING: dict[str, Any] = {
    **dict.fromkeys(("mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d"), average),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), average),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "amax", "max"), largest),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d"), largest),
    **dict.fromkeys(("interpolate", "upsample", "upsample_nearest2d", "repeat_interleave"), upsample),
    **dict.fromkeys(("cat", "concat", "stack"), concatenation),
    **dict.fromkeys(("matmul", "bmm", "mm"), product),
    "softmax": softmax,
    "scaled_dot_product_attention": dot_product_attention,
}
