"""Gradients before the step: their norm, safe clipping, and steps that are skipped.

Notable:
- A non-finite gradient is never scaled: `torch.nn.utils.clip_grad_norm_` would make it NaN everywhere, or
  zero. The step is skipped (every `.grad` becomes None) after the watch has seen it.
- Norm and loss leave the device in one transfer; a float32 norm that overflows is computed again in float64.
- A forward with a non-finite value spoils the running statistics of norms; they are reset.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.surgery.clipping import AdaptiveClip, Clipper, ZScoreClip, scale, total_norm


class Guard:
    """Measures, clips or discards the gradients between the backward and the step."""

    def __init__(self, limit: float | str, parameters: list[Tensor]) -> None:
        self.limit = float(limit) if not isinstance(limit, str) else 0.0
        made: dict[str, Clipper] = {"zclip": ZScoreClip(2.5, 0.97, 25), "agc": AdaptiveClip(0.01)}
        self.clipper = made[limit] if isinstance(limit, str) else None
        self.parameters = parameters
        self.norm = self.loss = math.nan
        self.finite = True
        self.clipped = 0

    def look(self, loss: Tensor, alone: bool = True) -> None:
        """Note norm and loss of a step, and whether both are finite; if not `alone`, the norm decides, which
        all processes share.
        """
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm = _norm(grads)
        self.norm, self.loss = torch.stack([norm, loss.detach().to(norm)]).tolist()
        if not math.isfinite(self.norm):
            self.norm = total_norm(grads)
        self.finite = math.isfinite(self.norm) and (math.isfinite(self.loss) or not alone)

    @torch.no_grad()
    def clip(self, optimizer: Any) -> None:
        """Clip finite gradients."""
        if not self.finite:
            return
        if self.clipper is not None:
            self.clipper(optimizer)
            self.clipped = self.clipper.clipped
        elif 0 < self.limit < self.norm:
            grads = [p.grad for p in self.parameters if p.grad is not None]
            scale_all(grads, self.limit / self.norm)
            self.clipped += 1

    def discard(self, *_: Any) -> None:
        """The last hook before the optimizer's step: without a finite gradient, no weight moves."""
        if not self.finite:
            for p in self.parameters:
                p.grad = None


def scale_all(grads: list[Tensor], factor: float) -> None:
    """Multiply in place; in one call if the factor is a normal float32."""
    if factor > 1e-37:
        torch._foreach_mul_(grads, factor)
    else:
        scale(grads, factor)


def _norm(grads: list[Tensor]) -> Tensor:
    """The L2 norm of all gradients, sharded ones too; 0 if there are none."""
    if not grads:
        return torch.zeros(())
    norm: Any = torch.nn.utils.get_total_norm(grads)
    found: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return found


@torch.no_grad()
def mend(model: nn.Module) -> int:
    """Reset running statistics that are not finite; returns in how many layers."""
    layers = 0
    for module in model.modules():
        poisoned = [b for b in module.buffers(False) if b.is_floating_point() and not b.isfinite().all()]
        reset = getattr(module, "reset_running_stats", None)
        if poisoned and reset is not None:
            reset()
            layers += 1
    return layers
