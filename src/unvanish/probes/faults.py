"""Where gradients end or break: looked into only when some are exactly zero or not finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from unvanish.probes import families
from unvanish.probes.backward import Flow
from unvanish.probes.forward import Forward, Operation, Turn
from unvanish.probes.graph import Graph


@dataclass(frozen=True)
class Stop:
    """A node whose arriving gradient is not zero and whose leaving one is, and how many parameters starve."""

    node: int
    because: str  # "zero parameter", "dead", "operation" or "loss"
    starved: int
    owner: Operation | Turn


def stops(graph: Graph, flow: Flow, watched: Forward, starving: dict[int, str]) -> list[Stop]:
    """Why the starving parameters (by node of the graph) get exactly no gradient; the most harmful first."""
    found = []
    for node, below in flow.killed:
        owner = watched.owner(_number(graph.nodes[node]))
        routes = isinstance(owner, Operation) and owner.kind in families.ROUTING
        names = set() if routes else _reached(graph, below, starving)
        if names:
            found.append(Stop(node, _because(graph, node, below, owner, watched), len(names), owner))
    return sorted(found, key=lambda stop: -stop.starved)


def _number(node: Any) -> int:
    return int(node._sequence_nr())


def _reached(graph: Graph, start: int, wanted: dict[int, str]) -> set[str]:
    seen, stack, names = {start}, [start], set()
    while stack:
        i = stack.pop()
        if i in wanted:
            names.add(wanted[i])
        fresh = [j for j in graph.below[i] if j not in seen]
        seen.update(fresh)
        stack += fresh
    return names


def _because(graph: Graph, node: int, below: int, owner: Operation | Turn, watched: Forward) -> str:
    if _number(graph.nodes[node]) >= watched.loss_start:
        return "loss"
    if isinstance(owner, Operation):
        if owner.family == "activation" and owner.kind not in ("sign", "hardtanh"):
            return "dead"
        if owner.kind in ("softmax", "log_softmax") and 1 not in owner.facts["shape"][1:]:
            return "dead"  # saturated beyond the dtype; over one element it is flat by definition
        if owner.family == "attention" and owner.facts.get("tokens", 0) >= 2:
            return "dead"  # equal tokens or a saturated softmax leave its queries and keys nothing
        weight = owner.facts.get("weight_tensor")
        if weight is not None and not bool(weight.any()):
            return "zero parameter"
    if any(_zero_parameter(graph, other, watched) for other in graph.below[node] if other != below):
        return "zero parameter"
    return "operation"


def _silent(graph: Graph, norm: int) -> bool:
    """Whether the gain and the shift of a normalisation are all zero, as in a zero-initialised branch."""
    below: list[Any] = [graph.nodes[i] for i in graph.below[norm]]
    own = [node.variable.detach() for node in below if type(node).__name__ == "AccumulateGrad"]
    return bool(own) and not any(bool(p.any()) for p in own)


def _zero_parameter(graph: Graph, start: int, watched: Forward) -> bool:
    """Whether a short chain of nodes leads to a parameter, or to a layer of weights, that is all zero."""
    i = start
    for _ in range(5):
        node: Any = graph.nodes[i]
        if type(node).__name__ == "AccumulateGrad":
            return not bool(torch.any(node.variable.detach()))
        owner = watched.owner(_number(node))
        weight = owner.facts.get("weight_tensor") if isinstance(owner, Operation) else None
        if weight is not None:
            return not bool(weight.any())
        if isinstance(owner, Operation) and owner.family == "norm" and _silent(graph, i):
            return True
        if len(graph.below[i]) != 1:
            return False
        i = graph.below[i][0]
    return False
