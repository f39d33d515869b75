"""The summands of a loss: their weights, values, and the gradient that each of them gives the parameters.

Notable:
- The sum is read off the autograd graph, from its root down through sums of scalars and constant factors, so
  a list that is stacked and a loss that is added up in the model are seen too.
- What depends on parameters alone, a penalty, is one term however many summands it has.
- One backward a term, and only of two to MOST of them: an ordinary loss has one, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from unvanish.core.loss_facts import PairFacts, TermFacts
from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.forward import Forward
from unvanish.probes.graph import walk

MOST = 8
SUMMANDS = 1024  # a penalty has one for each parameter
NUMBERS = 1 << 28  # of all gradients together: more are not held at once
SUMS = ("AddBackward0", "SubBackward0")
FACTORS = {
    f"{name}Backward0"
    for name in ("Mul", "Div", "Neg", "ToCopy", "View", "Clone", "Squeeze", "ReshapeAlias", "Unsqueeze")
}
JOINED = ("StackBackward0", "CatBackward0")
Edge = tuple[Any, int]
Gradients = Sequence[Tensor | None]


def measure_terms(
    root: Tensor, watched: Forward, parameters: Mapping[str, Tensor]
) -> tuple[list[TermFacts], list[PairFacts]]:
    """The terms of a loss, and for each two how their gradients compare in the weights they share."""
    edges = find_summands(root)
    if len(edges) < 2:
        return [], []
    groups = _group(edges, watched)
    trainable = [p for p in parameters.values() if p.requires_grad]
    if not 2 <= len(groups) <= MOST or sum(p.numel() for p in trainable) * len(groups) > NUMBERS:
        return [], []
    try:
        factors = [_differentiate(root, group) for group in groups]
        gradients = [_pull(group, f, trainable) for group, f in zip(groups, factors, strict=True)]
    except RuntimeError:  # a graph that cannot be gone through twice
        return [], []
    places = range(len(groups))
    owners = [{i for i in places if gradients[i][k] is not None} for k in range(len(trainable))]
    terms = [_describe(groups[i], factors[i], watched, {i} in owners) for i in places]
    pairs = [_compare(i, j, gradients[i], gradients[j]) for i in places for j in places if i < j]
    return terms, [pair for pair in pairs if pair is not None]


def _differentiate(root: Tensor, group: Sequence[Edge]) -> tuple[Tensor, ...]:
    """The factors with which summands enter the loss."""
    return torch.autograd.grad(root, [GradientEdge(*edge) for edge in group], retain_graph=True)


def _pull(group: Sequence[Edge], factors: Sequence[Tensor], trainable: Sequence[Tensor]) -> Gradients:
    """The gradient that a term gives each parameter; None where it gives none."""
    ends = [GradientEdge(*edge) for edge in group]
    return torch.autograd.grad(ends, trainable, factors, retain_graph=True, allow_unused=True)


def find_summands(root: Tensor) -> list[Edge]:
    """The summands below their constant factors; one if the root is no sum, none if there are too many."""
    found: list[Edge] = []
    waiting: list[Edge] = [(root.grad_fn, 0)]
    while waiting:
        node, number = waiting.pop()
        edges = [(n, k) for n, k in node.next_functions if n is not None]
        below = _below(type(node).__name__, edges)
        if below is None:
            found.append((node, number))
        else:
            waiting += reversed(below)
        if len(found) + len(waiting) > SUMMANDS:
            return []
    return found


def _group(edges: Sequence[Edge], watched: Forward) -> list[list[Edge]]:
    """Each summand of the data by itself, and all that depend on parameters alone together."""
    groups: list[list[Edge]] = []
    penalty: list[Edge] = []
    for edge in edges:
        if not reads_data(edge, watched):
            penalty.append(edge)
        elif len(groups) > MOST:
            return []
        else:
            groups.append([edge])
    return [*groups, penalty] if penalty else groups


def reads_data(edge: Edge, watched: Forward) -> bool:
    """Whether a summand depends on what a model made, or on a tensor with a gradient that is no parameter."""
    for node in walk(edge[0]).nodes:
        if node.next_functions:
            owner = watched.owner(node._sequence_nr())
            if not isinstance(owner, Operation) or owner.order < watched.loss_order:
                return True
            if owner.caller is not watched.root:
                return True
        elif id(getattr(node, "variable", None)) not in watched.parameters.names:
            return True
    return False


def _below(name: str, edges: list[Edge]) -> list[Edge] | None:
    """The summands that a node joins; None if it is a summand itself."""
    if name in ("SumBackward0", "MeanBackward0") and edges and type(edges[0][0]).__name__ in JOINED:
        parts = [(n, k) for n, k in edges[0][0].next_functions if n is not None]
        return parts if all(_is_single(edge) for edge in parts) else None
    if name not in (*SUMS, *FACTORS) or not edges or not all(_is_single(edge) for edge in edges):
        return None
    return edges if name in SUMS or len(edges) == 1 else None


def _is_single(edge: Edge) -> bool:
    """Whether an edge carries one number."""
    node, number = edge
    known: Sequence[Any] = getattr(node, "_input_metadata", ())
    return len(known) > number and all(n == 1 for n in known[number].shape)


def _describe(group: Sequence[Edge], factors: Sequence[Tensor], watched: Forward, own: bool) -> TermFacts:
    values = [value for edge in group if (value := _find_value(edge, watched)) is not None]
    owner = watched.owner(group[0][0]._sequence_nr())
    kind, line = "term", ""
    if isinstance(owner, Operation):
        kind, line = owner.kind, watched.loss_calls.lines.get(owner.order, "")
    return {
        "kind": operations.LOSSES.get(kind, kind),
        "source": line,
        "weight": max((float(f) for f in factors), key=abs),
        "value": sum(values) if len(values) == len(group) else float("nan"),
        "data": reads_data(group[0], watched),
        "answers": _meets_targets(group[0], watched),
        "constant": _find_constant(group, watched),
        "own": own,
    }


def _meets_targets(edge: Edge, watched: Forward) -> bool:
    """Whether the batch's targets enter a summand."""
    calls = watched.loss_calls
    met = {o.nodes[0] for c, o in calls.made if any(calls.is_target(t) for t in tensors_in(c.given, 2))}
    return any(node in met for node in walk(edge[0]).nodes) if met else False


def _find_value(edge: Edge, watched: Forward) -> float | None:
    call = _find_call(edge, watched)
    return None if call is None else float(call.result.detach())


def _find_call(edge: Edge, watched: Forward) -> OperationCall | None:
    """The call of the loss that made a summand, which is one number."""
    for call, _ in watched.loss_calls.made:
        made = call.result
        if isinstance(made, Tensor) and made.numel() == 1 and made.grad_fn is edge[0]:
            return call
    return None


def _find_constant(group: Sequence[Edge], watched: Forward) -> float:
    """The one number that one of torch's losses asks of all outputs; NaN if there is none."""
    call = _find_call(group[0], watched) if len(group) == 1 else None
    if call is None or call.kind not in operations.LOSSES:
        return float("nan")
    asked = [t for t in tensors_in(call.given[1:2], 1) if not t.requires_grad and t.numel() > 1]
    if not asked or asked[0].is_complex():
        return float("nan")
    least, most = torch.aminmax(asked[0].detach())
    return float(least) if bool(least == most) else float("nan")


def _compare(i: int, j: int, first: Gradients, second: Gradients) -> PairFacts | None:
    """The norms of two gradients and their cosine, over the parameters that both reach."""
    shared = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    sums = torch.zeros(3, dtype=torch.float64)
    for a, b in shared:
        x, y = a.double(), b.double()
        sums += torch.stack([x.square().sum(), y.square().sum(), (x * y).sum()]).cpu()
    one, other, product = sums.tolist()
    if not shared or not one * other > 0 or not one * other < float("inf"):
        return None
    return {
        "first": i,
        "second": j,
        "norms": (one**0.5, other**0.5),
        "cosine": product / (one * other) ** 0.5,
    }
