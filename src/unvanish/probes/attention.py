"""Attention, fused or written by hand: how sharp it is, and whether its queries get a gradient.

Notable: a softmax is an attention's if a matrix product made its scores and another one weighs
values with its result; who calls it and how the heads are laid out does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unvanish.probes import families
from unvanish.probes.backward import Flow
from unvanish.probes.forward import Forward, Node, Operation
from unvanish.probes.graph import Graph

End = tuple[Node, int]  # a node and which of its outputs


def mark(watched: Forward) -> None:
    """Find the (query, value) ends of every attention; a softmax that is none is no attention any more."""
    products = [o for o in watched.operations if "factors" in o.facts]
    for o in watched.operations:
        if o.kind == "softmax" and o.family == "attention":
            ends = _by_hand(o, products, watched)
            if ends is None:
                o.family = "other"
            else:
                o.facts["ends"] = ends


def watched_nodes(operation: Operation, graph: Graph) -> list[int]:
    """The nodes of the graph whose gradients tell queries from values."""
    return [graph.index[node] for node, _ in operation.facts.get("ends", ()) if node in graph.index]


def starvation(operation: Operation, graph: Graph, flow: Flow, watched: Forward) -> dict[str, float]:
    """`query_value_log`, and `token_cosine` of what the query projection reads."""
    ends: Sequence[End] = operation.facts.get("ends", ())
    places = [(graph.index.get(node), number) for node, number in ends]
    if len(places) != 2 or places[0][0] is None or places[1][0] is None:
        return {}
    found = {"token_cosine": _token_cosine(places[0][0], graph, watched)}
    q, v = (_at(flow, i, number) for i, number in places)
    return {**found, "query_value_log": q - v} if math.isfinite(v) and not math.isnan(q) else found


def _at(flow: Flow, i: int | None, number: int) -> float:
    parts = flow.parts.get(-1 if i is None else i, ())
    return parts[number] if number < len(parts) else math.nan


def _by_hand(softmax: Operation, products: Sequence[Operation], watched: Forward) -> tuple[End, End] | None:
    scores = _product_below(softmax.facts.get("scores"), watched)
    weighing = next(
        (
            o
            for o in products
            if softmax.order < o.order <= softmax.order + 16 and _reads(o, softmax, watched)
        ),
        None,
    )
    if scores is None or weighing is None or len(scores.facts["factors"]) < 2:
        return None
    q, v = _unscaled(scores.facts["factors"][-2], watched), weighing.facts["factors"][-1]
    return None if q[0] is None or v[0] is None else (q, v)


def _unscaled(end: End, watched: Forward) -> End:
    """What a factor was before it was multiplied by a number."""
    node, number = end
    for _ in range(4):
        owner = watched.owner(node._sequence_nr()) if node is not None else None
        edges = [(b, n) for b, n in node.next_functions if b is not None] if node is not None else []
        if not (isinstance(owner, Operation) and owner.kind in ("mul", "div") and len(edges) == 1):
            break
        node, number = edges[0]
    return node, number


def _product_below(node: Any, watched: Forward) -> Operation | None:
    """The matrix product that made the scores, through scaling, masks and views."""
    for _ in range(12):
        if node is None or type(node).__name__ == "AccumulateGrad":
            return None
        owner = watched.owner(node._sequence_nr())
        if isinstance(owner, Operation) and "factors" in owner.facts:
            return owner
        below = [b for b, _ in node.next_functions if b is not None and type(b).__name__ != "AccumulateGrad"]
        node = below[0] if below else None
    return None


def _reads(product: Operation, softmax: Operation, watched: Forward) -> bool:
    """Whether a product's first factor is the softmax's result, through views and dropout."""
    node: Any = product.facts["factors"][-2][0] if len(product.facts["factors"]) > 1 else None
    for _ in range(8):
        if node is None or type(node).__name__ == "AccumulateGrad":
            return False
        owner = watched.owner(node._sequence_nr())
        if owner is softmax:
            return True
        if not (isinstance(owner, Operation) and owner.kind in families.VIEWS):
            return False
        node = node.next_functions[0][0] if node.next_functions else None
    return False


def _token_cosine(query: int, graph: Graph, watched: Forward) -> float:
    """Likeness of the tokens that the query projection reads."""
    i, projected, last = query, False, None
    for _ in range(40):
        number = graph.nodes[i]._sequence_nr()
        owner = watched.owner(number)
        if number < watched.root.start or not graph.below[i]:
            break
        if isinstance(owner, Operation):
            if projected and owner is not last and "token_cosine" in owner.stats:
                return owner.stats["token_cosine"]
            projected, last = projected or owner.family == "layer", owner
        deeper = [
            j for j in graph.below[i] if any(graph.below[k] for k in graph.below[j])
        ]  # not to a weight alone
        if not deeper:
            break
        i = min(deeper)
    return math.nan


def fused(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Facts and statistics of a call of scaled_dot_product_attention, on at most 16 heads and 64 queries."""
    named = dict(
        zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)
    ) | dict(kwargs)
    q, k, v = named["query"], named["key"], named["value"]
    facts: dict[str, Any] = {
        "tokens": int(k.shape[-2]),
        "query_tokens": int(q.shape[-2]),
        "heads": int(q.shape[-3]) if q.ndim > 3 else 1,
    }
    facts["causal"] = bool(named.get("is_causal", False))
    if q.grad_fn is not None and v.grad_fn is not None:
        facts["ends"] = ((q.grad_fn, q.output_nr), (v.grad_fn, v.output_nr))
    if q.numel() == 0 or k.shape[-2] < 2:
        return facts, {}
    logits = _logits(q.detach(), k.detach(), named.get("attn_mask"), facts["causal"], named.get("scale"))
    visible = logits.isfinite() & (logits > -1e4)
    if not bool(visible.any()):
        return facts, {}
    return facts, {"logit_max": float(logits[visible].abs().max()), **entropy(logits.softmax(-1), visible)}


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


def by_softmax(result: Tensor) -> tuple[dict[str, Any], dict[str, float]]:
    """Facts and statistics of a softmax over keys, (..., queries, keys); the logits by their range."""
    lead = math.prod(result.shape[:-1])
    p = result.detach().reshape(lead, -1)[:: max(1, lead // 1024)].double()
    facts = {
        "tokens": int(result.shape[-1]),
        "query_tokens": int(result.shape[-2]),
        "heads": int(result.shape[-3]) if result.ndim > 3 else 1,
    }
    seen = p > 0
    ranges = p.amax(-1).log() - torch.where(seen, p, 1.0).amin(-1).log()
    certain = p.amax(-1, keepdim=True) > 0.999  # zeros beside a certain choice are no mask
    return facts, {"logit_max": float(ranges.max()), **entropy(p, seen | certain)}
