"""Gradient norms that do not overflow, and clippers that skip non-finite steps.

Notable:
- Norms are summed in float64: gradients of 1e-23 do not vanish and gradients of 1e19 do not become infinite.
  `torch.nn.utils.clip_grad_norm_` divides by an infinite norm in that case, which silently sets every
  gradient to zero.
- A non-finite gradient is never scaled: the step is skipped (every `.grad` is set to None, which optimizers
  ignore), and it does not enter the clipper's history.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from unvanish.probes.live.shards import local


def with_gradient(optimizer: Any) -> list[Tensor]:
    """The parameters of an optimizer that have a gradient."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def dense_gradient(p: Tensor) -> Tensor:
    """A parameter's gradient as a dense tensor that shares its memory."""
    assert p.grad is not None
    return p.grad.coalesce()._values() if p.grad.is_sparse else p.grad


@torch.no_grad()
def total_norm(tensors: Iterable[Tensor]) -> float:
    """The L2 norm of all tensors together, in float64; NaN or inf only if an element is."""
    norms = [torch.linalg.vector_norm(t, dtype=torch.float64) for t in tensors if t.numel()]
    if not norms:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms])))


@torch.no_grad()
def scale(tensors: Iterable[Tensor], factor: float) -> None:
    """Multiply in place, in float64 if the factor is outside the tensor's own range."""
    for t in tensors:
        small = torch.finfo(t.dtype).tiny
        if small < factor < 1 / small:
            t.mul_(factor)
        else:
            t.copy_(t.double() * factor)


class Clipper:
    """Called with an optimizer before each of its steps; counts what it did."""

    def __init__(self) -> None:
        self.steps = self.clipped = self.skipped = 0
        self.norm = math.nan  # of the last step, before clipping

    def __call__(self, optimizer: Any) -> None:
        self.steps += 1
        parameters = with_gradient(optimizer)
        grads = [dense_gradient(p) for p in parameters]
        self.norm = total_norm(grads)
        if not math.isfinite(self.norm):
            self.skipped += 1
            for p in parameters:
                p.grad = None
            return
        self.clipped += bool(self.clip(parameters, grads))

    def clip(self, parameters: list[Tensor], grads: list[Tensor]) -> bool:
        """Clip finite gradients in place; returns whether anything changed."""
        raise NotImplementedError


class NormClip(Clipper):
    """Scales all gradients together to a norm of at most `limit` (Pascanu et al. 2013)."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def clip(self, parameters: list[Tensor], grads: list[Tensor]) -> bool:
        if self.norm <= self.limit:
            return False
        scale(grads, self.limit / self.norm)
        return True


class ValueClip(Clipper):
    """Clamps every element to at most `limit` in absolute value."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    @torch.no_grad()
    def clip(self, parameters: list[Tensor], grads: list[Tensor]) -> bool:
        over = [g for g in grads if g.numel() and bool(g.abs().max() > self.limit)]
        for g in over:
            g.clamp_(-self.limit, self.limit)
        return bool(over)


class NonFiniteSkip(Clipper):
    """Clips nothing, and leaves steps out by what this process holds of the gradients: their local shards."""

    def __call__(self, optimizer: Any) -> None:
        self.steps += 1
        parameters = with_gradient(optimizer)
        self.norm = total_norm(local(p.grad) for p in parameters if p.grad is not None)
        if not math.isfinite(self.norm):
            self.skipped += 1
            for p in parameters:
                p.grad = None


class AdaptiveClip(Clipper):
    """Limits each unit's gradient to `ratio` times its weights' norm (AGC; Brock et al. 2021)."""

    def __init__(self, ratio: float, least: float = 1e-3) -> None:
        super().__init__()
        self.ratio, self.least = ratio, least

    @torch.no_grad()
    def clip(self, parameters: list[Tensor], grads: list[Tensor]) -> bool:
        any_over = False
        for p, g in zip(parameters, grads, strict=True):
            if p.grad is not None and p.grad.is_sparse:
                continue
            over = [d for d in range(1, g.ndim)]
            weight = _unit(p, over).clamp_min(self.least)
            size = _unit(g, over)
            factor = (self.ratio * weight / size.clamp_min(torch.finfo(torch.float64).tiny)).clamp_max(1.0)
            if bool((factor < 1).any()):
                g.copy_((g.double() * factor).to(g.dtype))
                any_over = True
        return any_over


def _unit(t: Tensor, over: list[int]) -> Tensor:
    """Norms of the rows, in float64; of the whole tensor if it has one dimension."""
    norm: Tensor = torch.linalg.vector_norm(t, dim=over or None, keepdim=bool(over), dtype=torch.float64)
    return norm


class ZScoreClip(Clipper):
    """Reduces norms that are outliers in the run's history (ZClip; Kumar et al. 2025).

    An outlier lies more than `z` deviations above the mean. Mean and variance are exponential averages with
    `decay` over the clipped norms; the first `warm_up` steps start them and are not clipped.
    """

    def __init__(self, z: float, decay: float, warm_up: int) -> None:
        super().__init__()
        self.z, self.decay, self.warm_up = z, decay, warm_up
        self.mean = self.variance = 0.0
        self.seen: list[float] = []

    def clip(self, parameters: list[Tensor], grads: list[Tensor]) -> bool:
        if len(self.seen) < self.warm_up:
            self.seen.append(self.norm)
            self.mean = sum(self.seen) / len(self.seen)
            self.variance = sum((n - self.mean) ** 2 for n in self.seen) / len(self.seen)
            return False
        deviation = max(math.sqrt(self.variance), 1e-12 * max(self.mean, 1e-300))
        score = (self.norm - self.mean) / deviation
        limit = self.mean + self.z**2 / max(score, self.z) * deviation
        over = score > self.z
        kept = min(self.norm, limit) if over else self.norm
        if over and self.norm > 0:
            scale(grads, kept / self.norm)
        self.mean, before = self.decay * self.mean + (1 - self.decay) * kept, self.mean
        self.variance = self.decay * self.variance + (1 - self.decay) * (kept - before) ** 2
        return over
