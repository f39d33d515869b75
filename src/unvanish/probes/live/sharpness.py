"""Attention under watch: a few rows of its logits, and how sharp they are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from unvanish.probes.signatures import bind


def pick_logits(kind: str, args: Any, kwargs: Any) -> Tensor | None:
    """A few rows of attention logits, (rows, keys); what is masked is -inf."""
    if kind == "softmax":
        x: Tensor = bind(kind, args, kwargs)["input"]
        lead = math.prod(x.shape[:-1])
        return x.detach().reshape(lead, -1)[:: max(1, lead // 64)][:64].float()
    named = bind(kind, args, kwargs)
    q, k, mask = named["query"].detach(), named["key"].detach(), named["attn_mask"]
    if q.shape[-2] < 1 or k.shape[-2] < 4:
        return None
    rows = torch.arange(q.shape[-2], device=q.device)[:: _every(q.shape[-2], 8)][:8]
    some_q, some_k = q[..., rows, :], k
    if q.ndim > 3:
        heads = _every(q.shape[-3], 4)
        some_q = some_q[0, ::heads]
        ratio = q.shape[-3] // k.shape[-3]
        some_k = k[0].repeat_interleave(ratio, -3)[::heads] if ratio > 1 else k[0, ::heads]
    logits = some_q.float() @ some_k.float().mT * (named["scale"] or 1 / math.sqrt(q.shape[-1]))
    if isinstance(mask, Tensor):
        part = mask.detach().expand(*q.shape[:-1], k.shape[-2])[..., rows, :]
        part = part[0, :: _every(q.shape[-3], 4)] if q.ndim > 3 else part
        logits = logits.masked_fill(~part, -math.inf) if part.dtype == torch.bool else logits + part.float()
    if named["is_causal"]:
        hidden = torch.arange(k.shape[-2], device=q.device)[None] > rows[:, None]
        logits = logits.masked_fill(hidden, -math.inf)
    rows_of: Tensor = logits.flatten(0, -2)
    return rows_of


def sharpness(logits: Tensor) -> Tensor:
    """(entropy / ln(visible keys), largest |logit|) over rows that see four keys or more, shape (2,)."""
    visible = logits.isfinite() & (logits > -1e4)
    counts = visible.sum(-1)
    rows = (counts >= 4).double()
    p = logits.softmax(-1).double()
    nats = (
        -torch.where(p > 0, p * p.clamp_min(1e-300).log(), 0.0).sum(-1) / counts.clamp_min(2).double().log()
    )
    mean = torch.where(rows > 0, nats, 0.0).sum() / rows.sum()
    return torch.stack([mean, torch.where(visible, logits.abs(), 0.0).max().double()])


def _every(size: int, wanted: int) -> int:
    return max(1, size // wanted)
