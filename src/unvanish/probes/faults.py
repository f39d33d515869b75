"""Where gradients end: who stops them, and which parameters starve."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from unvanish.core.facts import StopReason
from unvanish.probes import operations
from unvanish.probes.backward import GradientFlow
from unvanish.probes.events import ModuleCall, Operation
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph

HOOK = "BackwardHookFunctionBackward"  # torch's node for a full backward hook of a module; see `hooked`
MULTIPLIED = operations.PRODUCTS | {"mul", "addcmul"}


@dataclass(frozen=True)
class Stop:
    """A node at which a gradient arrives and none leaves; `starved`: how many parameters get none."""

    node: int
    because: StopReason
    starved: int
    owner: Operation | ModuleCall
    locked: tuple[str, ...] = ()  # parameters that are zero, each of which keeps the others' gradient zero


def find_stops(graph: Graph, flow: GradientFlow, watched: Forward, starving: dict[int, str]) -> list[Stop]:
    """Why the starving parameters (by node of the graph) get no gradient at all; the most harmful first.

    An operation is not to blame for what starves behind weights that start at zero, whatever it passes.
    """
    found: list[Stop] = []
    flat: list[tuple[Stop, int]] = []
    shut: set[tuple[int, int]] = set()
    zeros: dict[int, str] = {}  # by place in `found`: the zero parameter because of which nothing passes
    for node, below in flow.killed:
        owner = watched.owner(_number(graph.nodes[node]))
        routes = isinstance(owner, Operation) and owner.kind in operations.ROUTING
        hooked = type(graph.nodes[node]).__name__ == HOOK
        names = set() if routes or hooked else find_starving(graph, below, starving)
        if not names:
            continue
        locked = _find_locked(graph, node, watched, starving)
        because: StopReason = "locked" if locked else _because(graph, node, below, owner, watched)
        shut |= {(node, below)} if because == "zero parameter" else set()
        stop = Stop(node, because, len(names), owner, locked)
        if because in ("operation", "number"):
            flat.append((stop, below))
            continue
        if because in ("zero parameter", "dead"):
            zeros[len(found)] = _find_zero(graph, node, below, owner, watched)
        found.append(stop)
    found = _lock_series(found, zeros, {*starving.values()})
    for stop, below in flat:
        if names := find_starving(graph, below, starving, shut):
            found.append(replace(stop, starved=len(names)))
    return sorted(found, key=lambda stop: -stop.starved)


def _lock_series(stops: list[Stop], zeros: Mapping[int, str], starving: set[str]) -> list[Stop]:
    """Stops at zero parameters, locked if each of these starves itself: then none of them ever moves."""
    named = {i: name for i, name in zeros.items() if name}
    if not named or not starving.issuperset(named.values()):
        return stops
    locked = tuple(sorted({*named.values()}))
    return [replace(s, because="series", locked=locked) if i in named else s for i, s in enumerate(stops)]


def _find_zero(graph: Graph, node: int, below: int, owner: Operation | ModuleCall, watched: Forward) -> str:
    """The zero parameter that makes a node pass nothing: its own, another factor, or what it reads; or ""."""
    weight = owner.handles.get("weight_tensor") if isinstance(owner, Operation) else None
    if isinstance(owner, Operation) and weight is not None and not bool(weight.any()):
        return str(owner.facts.get("weight") or "")
    if isinstance(owner, Operation) and owner.family == "activation":
        return _zero_parameter(graph, below, watched)
    others = [other for other in _factors(graph, node, watched) if other != below]
    return next((name for other in others if (name := _zero_parameter(graph, other, watched))), "")


def find_cancelled(graph: Graph, flow: GradientFlow, starving: dict[int, str]) -> frozenset[str]:
    """The starving parameters (by node of the graph) that no node stops: what arrives adds up to zero."""
    stopped: set[str] = set()
    for _, below in flow.killed:
        stopped |= find_starving(graph, below, starving)
    return frozenset(starving.values()) - stopped


def _number(node: Any) -> int:
    return int(node._sequence_nr())


def find_starving(
    graph: Graph, start: int, wanted: Mapping[int, str], shut: Collection[tuple[int, int]] = ()
) -> set[str]:
    """The wanted names below a node, by paths that use no shut edge."""
    seen, stack, names = {start}, [start], set()
    while stack:
        i = stack.pop()
        if i in wanted:
            names.add(wanted[i])
        fresh = [j for j in graph.below[i] if j not in seen and (i, j) not in shut]
        seen.update(fresh)
        stack += fresh
    return names


def _because(
    graph: Graph, node: int, below: int, owner: Operation | ModuleCall, watched: Forward
) -> StopReason:
    if _number(graph.nodes[node]) >= watched.loss_start:
        return "loss"
    if isinstance(owner, Operation):
        if owner.family == "activation" and owner.kind not in ("sign", "hardtanh"):
            return "dead"
        if owner.kind in ("softmax", "log_softmax") and 1 not in owner.facts["shape"][1:]:
            return "dead"  # saturated beyond the dtype; over one element it is flat by definition
        if owner.kind == "grad":
            return "dead"  # a derivative is not moved by the biases of straight pieces
        if owner.family == "attention" and owner.facts.get("tokens", 0) >= 2:
            return "dead"  # equal tokens or a saturated softmax leave nothing to its queries and keys
        weight = owner.handles.get("weight_tensor")
        if weight is not None:  # its input gets a gradient, the weight none if the input is zero
            return "dead" if bool(weight.any()) else "zero parameter"
    others = [other for other in _factors(graph, node, watched) if other != below]
    if any(_zero_parameter(graph, other, watched) for other in others):
        return "zero parameter"
    return "number" if _is_switched_off(graph.nodes[node], owner) else "operation"


def _is_switched_off(node: Any, owner: Operation | ModuleCall) -> bool:
    """Whether a tensor is multiplied by the number 0, which somebody wrote or set."""
    if not isinstance(owner, Operation) or owner.kind != "mul" or "_saved_other" not in dir(node):
        return False
    if sum(below is not None for below, _ in node.next_functions) != 1:
        return False
    factor = node._saved_other if node._saved_other is not None else node._saved_self
    return isinstance(factor, torch.Tensor) and factor.ndim == 0 and not bool(factor)


def _find_locked(graph: Graph, node: int, watched: Forward, starving: dict[int, str]) -> tuple[str, ...]:
    """Zero parameters without a gradient behind two or more factors of a node: none of them can move.

    First comes the one that the data meet first, of a product of parameters alone the right one.
    """
    held: dict[str, tuple[int, int]] = {}
    for place, other in enumerate(_factors(graph, node, watched)):
        name = _zero_parameter(graph, other, watched)
        if name in starving.values():
            held.setdefault(name, (-_count_below(graph, other), -place))
    return tuple(sorted(held, key=lambda name: held[name])) if len(held) > 1 else ()


def _count_below(graph: Graph, start: int) -> int:
    """How many nodes lie below one."""
    seen, stack = {start}, [start]
    while stack:
        fresh = [j for j in graph.below[stack.pop()] if j not in seen]
        seen.update(fresh)
        stack += fresh
    return len(seen)


def _factors(graph: Graph, node: int, watched: Forward) -> list[int]:
    """The nodes below one, without those of the biases that a layer or a normalisation adds."""
    owner = watched.owner(_number(graph.nodes[node]))
    added: set[str] = set()
    if isinstance(owner, Operation) and owner.family == "layer":
        added = {*owner.parameters} - {owner.facts.get("weight")}
    elif isinstance(owner, Operation) and owner.family == "norm":
        added = {*owner.parameters[1:]}
    named, nodes = watched.parameters.names, graph.nodes
    return [j for j in graph.below[node] if named.get(id(getattr(nodes[j], "variable", None))) not in added]


def _silent(graph: Graph, norm: int) -> bool:
    """Whether the gain and the shift of a normalisation are all zero, as in a zero-initialised branch."""
    below: list[Any] = [graph.nodes[i] for i in graph.below[norm]]
    own = [node.variable.detach() for node in below if type(node).__name__ == "AccumulateGrad"]
    return bool(own) and not any(bool(p.any()) for p in own)


def _zero_parameter(graph: Graph, start: int, watched: Forward, reach: int = 5) -> str:
    """The parameter, itself or as a layer's weights, that is all zero at the end of a short chain, or ""."""
    node: Any = graph.nodes[start]
    if type(node).__name__ == "AccumulateGrad":
        zero = not bool(torch.any(node.variable.detach()))
        return watched.parameters.names.get(id(node.variable), "(parameter)") if zero else ""
    owner = watched.owner(_number(node))
    weight = owner.handles.get("weight_tensor") if isinstance(owner, Operation) else None
    if isinstance(owner, Operation) and weight is not None:
        return "" if bool(weight.any()) else str(owner.facts.get("weight") or "(weights)")
    if isinstance(owner, Operation) and owner.family == "norm" and _silent(graph, start):
        return next(iter(owner.parameters), "(norm)")
    product = isinstance(owner, Operation) and owner.kind in MULTIPLIED
    below = graph.below[start]
    if not reach or not (len(below) == 1 or product):
        return ""
    return next((name for j in below if (name := _zero_parameter(graph, j, watched, reach - 1))), "")
