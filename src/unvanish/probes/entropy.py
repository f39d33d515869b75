"""How sharp an attention is: its entropy and logits, of a fused one or from a softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unvanish.core.facts import NodeFacts
from unvanish.probes.handles import End


def read_fused(call: Mapping[str, Any]) -> tuple[NodeFacts, dict[str, float]]:
    """Facts and statistics of scaled_dot_product_attention, on at most 16 heads and 64 queries.

    `call`: its arguments by name.
    """
    q, k = call["query"], call["key"]
    facts: NodeFacts = {
        "tokens": int(k.shape[-2]),
        "query_tokens": int(q.shape[-2]),
        "heads": int(q.shape[-3]) if q.ndim > 3 else 1,
        "causal": bool(call["is_causal"]),
    }
    if q.numel() == 0 or k.shape[-2] < 2:
        return facts, {}
    logits = _logits(q.detach(), k.detach(), call["attn_mask"], facts["causal"], call["scale"])
    visible = logits.isfinite() & (logits > -1e4)
    if not bool(visible.any()):
        return facts, {}
    return facts, {"logit_max": float(logits[visible].abs().max()), **entropy(logits.softmax(-1), visible)}


def find_ends(call: Mapping[str, Any]) -> tuple[End, End] | None:
    """Where the queries and the values of such a call come from; None if either needs no gradient."""
    q, v = call["query"], call["value"]
    if q.grad_fn is None or v.grad_fn is None:
        return None
    return (q.grad_fn, q.output_nr), (v.grad_fn, v.output_nr)


def _logits(q: Tensor, k: Tensor, mask: Any, causal: bool, scale: float | None) -> Tensor:
    if q.ndim > 3 and q.shape[-3] != k.shape[-3]:
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
    step, lead = -(-q.shape[-2] // 64), math.prod(q.shape[:-2])
    rows = torch.arange(q.shape[-2], device=q.device)[step - 1 :: step]
    some = torch.arange(0, lead, max(1, lead // 16), device=q.device)[:16]
    keys = k.expand(*q.shape[:-2], *k.shape[-2:]).reshape(lead, *k.shape[-2:])[some].double()
    logits = (
        q.reshape(lead, *q.shape[-2:])[some][:, rows].double()
        @ keys.mT
        * (scale or 1 / math.sqrt(q.shape[-1]))
    )
    if isinstance(mask, Tensor):
        shape = (*q.shape[:-1], k.shape[-2])
        full = mask.detach().expand(shape).reshape(lead, *shape[-2:])[some][:, rows]
        logits = logits.masked_fill(~full, -math.inf) if full.dtype == torch.bool else logits + full.double()
    if causal:
        past = torch.arange(k.shape[-2], device=q.device)[None] > rows[:, None]
        logits = logits.masked_fill(past, -math.inf)
    return logits


def entropy(weights: Tensor, visible: Tensor) -> dict[str, float]:
    """Mean entropy over ln(visible tokens), over the rows that see at least 4 tokens."""
    seen = visible.sum(-1)
    rows = seen >= 4
    if not bool(rows.any()):
        return {}
    p = weights[rows]
    nats = -(torch.where(p > 0, p * p.log(), 0.0)).sum(-1)
    return {"entropy": float((nats / seen[rows].double().log()).mean())}


def read_softmax(result: Tensor) -> tuple[NodeFacts, dict[str, float]]:
    """Facts and statistics of a softmax over keys, (..., queries, keys); logits by the range of its log."""
    lead = math.prod(result.shape[:-1])
    p = result.detach().reshape(lead, -1)[:: max(1, lead // 1024)].double()
    facts: NodeFacts = {
        "tokens": int(result.shape[-1]),
        "query_tokens": int(result.shape[-2]),
        "heads": int(result.shape[-3]) if result.ndim > 3 else 1,
    }
    seen = p > 0
    ranges = p.amax(-1).log() - torch.where(seen, p, 1.0).amin(-1).log()
    certain = p.amax(-1, keepdim=True) > 0.999  # zeros next to a certain choice are not a mask
    return facts, {"logit_max": float(ranges.max()), **entropy(p, seen | certain)}
