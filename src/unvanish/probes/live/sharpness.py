"""Attention under watch: a few rows of its logits, and how sharp they are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from unvanish.probes.signatures import bind

ROWS = 64  # of the logits of a softmax that are looked at
MOST_HEADS = 64  # that are told apart
GOLDEN = 0.618034  # its multiples spread evenly, so no head and no query is met alone


def pick_logits(kind: str, args: Any, kwargs: Any) -> tuple[Tensor, Tensor] | None:
    """A few rows of attention logits, (rows, keys), and the head of each; what is masked is -inf."""
    if kind == "softmax":
        x: Tensor = bind(kind, args, kwargs)["input"]
        lead = math.prod(x.shape[:-1])
        heads, queries = (x.shape[-3], x.shape[-2]) if x.ndim > 3 else (1, lead)
        picked = sorted(
            {int((i + i * GOLDEN % 1) * lead / ROWS) for i in range(ROWS)} if lead > ROWS else range(lead)
        )
        rows_at = torch.tensor(picked, device=x.device)
        return x.detach().reshape(lead, -1)[rows_at].float(), rows_at // queries % heads
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
    heads_of = torch.arange(len(logits) if logits.ndim > 2 else 1, device=q.device)
    rows_of: Tensor = logits.flatten(0, -2)
    return rows_of, heads_of.repeat_interleave(len(rows_of) // len(heads_of))


def sharpness(logits: Tensor, heads: Tensor) -> Tensor:
    """(entropy / ln(visible keys), largest |logit|, entropy of the sharpest head), shape (3,).

    Over rows that see four keys or more; `heads`: the head of each row.
    """
    visible = logits.isfinite() & (logits > -1e4)
    counts = visible.sum(-1)
    rows = (counts >= 4).double()
    p = logits.softmax(-1).double()
    nats = (
        -torch.where(p > 0, p * p.clamp_min(1e-300).log(), 0.0).sum(-1) / counts.clamp_min(2).double().log()
    )
    seen = torch.where(rows > 0, nats, 0.0)
    table = torch.zeros(2, MOST_HEADS, dtype=torch.float64, device=logits.device)
    table[0].index_add_(0, heads % MOST_HEADS, seen)
    table[1].index_add_(0, heads % MOST_HEADS, rows)
    by_head = torch.where(table[1] > 0, table[0] / table[1], math.inf).min()
    sharpest = torch.where(by_head.isinf(), math.nan, by_head)
    largest = torch.where(visible, logits.abs(), 0.0).max().double()
    return torch.stack([seen.sum() / rows.sum(), largest, sharpest])


def _every(size: int, wanted: int) -> int:
    return max(1, size // wanted)


@torch.no_grad()
def measure_log_z(output: Tensor) -> Tensor | None:
    """The mean over at most `ROWS` rows of ln sum exp; None if the output cannot be three logits or more."""
    if output.ndim < 2 or output.shape[-1] < 3 or not output.is_floating_point() or not output.numel():
        return None
    rows = output.detach().reshape(-1, output.shape[-1])
    return rows[:: _every(len(rows), ROWS)][:ROWS].float().logsumexp(-1).double().mean()
