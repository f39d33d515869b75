"""What the generator reads off one attention call: entropy, logits, token cosine, starvation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def projections(module: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int]:
    """Weights of q, k, v, biases of q, k, and the number of heads, of our own or torch's attention."""
    if isinstance(module, nn.MultiheadAttention):
        assert module.in_proj_weight is not None
        q, k, v = module.in_proj_weight.chunk(3)
        bias_q, bias_k, _ = module.in_proj_bias.chunk(3)
        return q, k, v, bias_q, bias_k, module.num_heads
    return module.q.weight, module.k.weight, module.v.weight, module.q.bias, module.k.bias, module.heads


@torch.no_grad()
def attention_reading(module: Any, x: Tensor) -> tuple[float, float, float]:
    """(entropy / ln T, largest |logit|, mean token cosine) of one attention call on x (B, T, D)."""
    q, k, _, bias_q, bias_k, heads = projections(module)
    batch, steps, _ = x.shape
    query = (x @ q.T + bias_q).view(batch, steps, heads, -1).transpose(1, 2)
    key = (x @ k.T + bias_k).view(batch, steps, heads, -1).transpose(1, 2)
    logits = query @ key.transpose(2, 3) * getattr(module, "scaling", query.shape[-1] ** -0.5)
    attention = logits.softmax(-1)
    entropy = -(attention * attention.clamp_min(1e-300).log()).sum(-1).mean() / math.log(max(steps, 2))
    unit = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-300)
    total = (unit @ unit.transpose(1, 2)).sum((1, 2)) - steps
    return float(entropy), float(logits.abs().max()), float((total / (steps * max(steps - 1, 1))).mean())


def starvation(module: Any) -> float:
    """||g_q|| / ||g_v|| of one attention after the backward; nan if there is no gradient."""
    if isinstance(module, nn.MultiheadAttention):
        whole = module.in_proj_weight.grad if module.in_proj_weight is not None else None
        parts = (whole, None, whole) if whole is None else whole.chunk(3)
        query, value = parts[0], parts[2]
    else:
        query, value = module.q.weight.grad, module.v.weight.grad
    if query is None or value is None:
        return math.nan
    return float(query.norm()) / max(float(value.norm()), 1e-300)
