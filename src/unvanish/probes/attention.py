"""Attention, fused or written by hand: where its queries and values come from, and whether queries learn.

Notable: a softmax is an attention's if a matrix product made its scores and another one weighs
values with its result; the caller and the layout of the heads do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unvanish.probes import operations
from unvanish.probes.backward import GradientFlow
from unvanish.probes.events import Operation
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph
from unvanish.probes.handles import End


def mark(watched: Forward) -> None:
    """Find the (query, value) ends of every attention; another softmax becomes an operation like others."""
    products = [o for o in watched.operations if "factors" in o.handles]
    for o in watched.operations:
        if o.kind == "softmax" and o.family == "attention":
            ends = _by_hand(o, products, watched)
            if ends is None:
                o.family = "other"
            else:
                o.handles["ends"] = ends


def watched_nodes(operation: Operation, graph: Graph) -> list[int]:
    """The nodes of the graph at which the gradients of queries and values arrive."""
    return [
        graph.index[node]
        for node, _ in operation.handles.get("ends", ())
        if node is not None and node in graph.index
    ]


def starvation(operation: Operation, graph: Graph, flow: GradientFlow, watched: Forward) -> dict[str, float]:
    """`query_value_log`, and the `token_cosine` of what the query projection reads."""
    ends: Sequence[End] = operation.handles.get("ends", ())
    places = [(None if node is None else graph.index.get(node), number) for node, number in ends]
    if len(places) != 2 or places[0][0] is None or places[1][0] is None:
        return {}
    found = {"token_cosine": _token_cosine(places[0][0], graph, watched)}
    q, v = (_at(flow, i, number) for i, number in places)
    return {**found, "query_value_log": q - v} if math.isfinite(v) and not math.isnan(q) else found


def _at(flow: GradientFlow, i: int | None, number: int) -> float:
    parts = flow.parts.get(-1 if i is None else i, ())
    return parts[number] if number < len(parts) else math.nan


def _by_hand(softmax: Operation, products: Sequence[Operation], watched: Forward) -> tuple[End, End] | None:
    scores = find_product(softmax.handles.get("scores"), watched)
    weighing = next(
        (
            o
            for o in products
            if softmax.order < o.order <= softmax.order + 16 and _reads(o, softmax, watched)
        ),
        None,
    )
    if scores is None or weighing is None or len(scores.handles["factors"]) < 2:
        return None
    q, v = _unscaled(scores.handles["factors"][-2], watched), weighing.handles["factors"][-1]
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


def find_product(node: Any, watched: Forward) -> Operation | None:
    """The matrix product that made the scores, through scaling, masks and views."""
    for _ in range(12):
        if node is None or type(node).__name__ == "AccumulateGrad":
            return None
        owner = watched.owner(node._sequence_nr())
        if isinstance(owner, Operation) and "factors" in owner.handles:
            return owner
        below = [b for b, _ in node.next_functions if b is not None and type(b).__name__ != "AccumulateGrad"]
        node = below[0] if below else None
    return None


def _reads(product: Operation, softmax: Operation, watched: Forward) -> bool:
    """Whether a product's first factor is the softmax's result, through views and dropout."""
    node: Any = product.handles["factors"][-2][0] if len(product.handles["factors"]) > 1 else None
    for _ in range(8):
        if node is None or type(node).__name__ == "AccumulateGrad":
            return False
        owner = watched.owner(node._sequence_nr())
        if owner is softmax:
            return True
        if not (isinstance(owner, Operation) and owner.kind in operations.VIEWS):
            return False
        node = node.next_functions[0][0] if node.next_functions else None
    return False


def _token_cosine(query: int, graph: Graph, watched: Forward) -> float:
    """Mean cosine between the tokens that the query projection reads; NaN if they are not found."""
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
