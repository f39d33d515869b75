"""The sites of operations and modules: their facts, their place on the main depth axis, their faults."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import torch

from unvanish.core.facts import NodeFacts
from unvanish.core.trace import Axis, Site
from unvanish.probes import attention, operations, outputs
from unvanish.probes.backward import GradientFlow
from unvanish.probes.calls import Call
from unvanish.probes.chain import Chain, ChainRow
from unvanish.probes.divisors import read_pole
from unvanish.probes.events import ModuleCall, Operation
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph
from unvanish.probes.passes import BackwardPass, Measured

NONE = BackwardPass()
SHOWN = ("layer", "activation", "norm", "attention", "recurrent")


def is_shown(operation: Operation) -> bool:
    """Whether an operation has a site wherever it lies."""
    return operation.family in SHOWN or operation.kind == "embedding"


def nodes(
    call: Call, watched: Forward, backward: BackwardPass = NONE
) -> tuple[list[Measured], list[Axis], dict[int, int]]:
    """Sites of the operations that matter, and of the cuts; they follow the inputs in the trace.

    Last, the index of the site that stands for each node of the graph.
    """
    graph, flow, chains = backward.graph, backward.flow, backward.chains
    leaves = {name: place for place, name in enumerate(call.originals)}
    places: dict[int, int] = {}
    rows: list[Measured] = []
    names: dict[str, int] = {}
    read = outputs.read_by_loss(watched)
    numbered = {node: k for k, node in enumerate(chains[0].sites)} if chains else {}
    for owner, node in sorted(_choose(watched, backward, leaves), key=lambda pair: _order(*pair)):
        path, kind = outputs.identify(owner)
        again = names[path] = names.get(path, -1) + 1
        facts, stats = _describe(owner)
        if node is not None and graph is not None and (function := _custom_function(graph.nodes[node])):
            kind = facts["function"] = function
        if node is not None and flow is not None:
            stats |= _backward(node, flow)
        if node is not None and chains:
            facts |= _place(node, chains[0], numbered)
        if isinstance(owner, Operation) and owner.family == "attention" and graph and flow:
            stats |= attention.starvation(owner, graph, flow, watched)
        facts |= _faults(owner, node, watched, backward)
        if isinstance(owner, Operation) and owner.order in read:
            facts["output"] = True
        if isinstance(owner, Operation) and owner.order >= watched.loss_order:
            facts["in_loss"] = True
        if node is not None:
            places[node] = len(leaves) + len(rows)
        rows.append((Site.node(path, kind, again, facts), stats))
    rows += _modules(watched, graph, flow, {site.path for site, _ in rows})
    return rows, [Axis(c.name, "depth", _axis(c, places, leaves)) for c in chains], places


def _modules(
    watched: Forward, graph: Graph | None, flow: GradientFlow | None, known: set[str]
) -> list[Measured]:
    """A site for each call of a module that no operation stands for, with its output's gradient."""
    found = []
    for call in watched.module_calls:
        if call.path in known or not call.outputs:
            continue
        facts: NodeFacts = {"family": "module", "order": -1, "module": call.path}
        node = None if graph is None else graph.index.get(call.outputs[0][0])
        stats = {} if node is None or flow is None else _backward(node, flow)
        found.append((Site.node(call.path, type(call.module).__name__.lower(), call.index, facts), stats))
    return found


def _choose(
    watched: Forward, backward: BackwardPass, leaves: Mapping[str, int]
) -> list[tuple[Operation | ModuleCall, int | None]]:
    """Who has a site, and the node its gradient is read at: the one on an axis, else its own."""
    found: dict[int, tuple[Operation | ModuleCall, int | None]] = {}
    graph = backward.graph
    odd = {id(s.owner) for s in backward.stops} | {id(b) for b in backward.broken}
    for o in watched.operations:
        alive = graph is None or o.nodes[0] in graph.index
        shows = alive and is_shown(o) and o.order < watched.loss_order
        if shows or id(o) in odd or o is watched.first_broken or o.handles.get("made_nonfinite"):
            found[id(o)] = (o, None if graph is None else graph.index.get(o.nodes[0]))
    for c in reversed(backward.chains):  # the main one last: its nodes count
        for owner, node in zip(c.owners, c.sites, strict=True):
            if node != c.sites[-1] or c.name not in leaves:
                found[_key(owner, node)] = (owner, node)
    for stop in backward.stops:
        found.setdefault(_key(stop.owner, stop.node), (stop.owner, stop.node))
    for owner in backward.broken:
        found.setdefault(id(owner), (owner, None))
    return list(found.values())


def _key(owner: Operation | ModuleCall, node: int) -> int:
    """A module may own several nodes that no operation made."""
    return id(owner) if isinstance(owner, Operation) else id(owner) + node


def _describe(owner: Operation | ModuleCall) -> tuple[NodeFacts, dict[str, float]]:
    """The facts and forward statistics of an operation; a module that made nodes by itself has none."""
    if isinstance(owner, ModuleCall):
        return {"order": -1}, {}
    facts: NodeFacts = {
        **owner.facts,
        "order": owner.order,
        "family": owner.family,
        "parameters": owner.parameters,
        "module": owner.caller.path,
        "squashing": owner.kind in operations.SQUASHING,
        "rectifier": owner.kind in operations.RECTIFIERS,
    }
    return facts, dict(owner.stats)


def _axis(chain: Chain, places: Mapping[int, int], leaves: Mapping[str, int]) -> tuple[int, ...]:
    """Indices into the trace; the end at an input is the input's own site."""
    found = [places[i] for i in chain.sites if i in places]
    return (*found, leaves[chain.name]) if chain.name in leaves else tuple(found)


def _custom_function(node: Any) -> str:
    """The name of a `torch.autograd.Function` that somebody wrote, by its node; "" for other nodes."""
    own = isinstance(node, torch.autograd.function.BackwardCFunction)
    return type(node).__name__.removesuffix("Backward") if own else ""


def _order(owner: Operation | ModuleCall, node: int | None) -> tuple[int, int]:
    return (owner.start, 0) if node is None else (owner.start, -node)


def _backward(node: int, flow: GradientFlow) -> dict[str, float]:
    found = {"backward_log": flow.log.get(node, math.nan)}
    if node in flow.zero:
        found |= {"backward_zero": flow.zero[node], "backward_nonfinite": flow.nonfinite[node]}
    return found


def _place(node: int, main: Chain, numbered: Mapping[int, int]) -> NodeFacts:
    """Where on, or between, the cuts of the main axis a node lies."""
    k = numbered.get(node)
    if k is None:
        above = bisect_left(main.sites, node) - 1
        return {"cut": False, "segment": above if 0 <= above < len(main.rows) else None}
    facts: NodeFacts = {"cut": True, "segment": k}
    if k < len(main.rows):
        facts |= _row(main.rows[k])
        after = main.rows[k + 1] if k + 1 < len(main.rows) else None
        norm = isinstance(main.owners[k], Operation) and main.owners[k].family == "norm"  # type: ignore[union-attr]
        facts["stream_norm"] = bool(norm and after is not None and after.residual)
    return facts


def _row(row: ChainRow) -> NodeFacts:
    families = [o.family for o in row.operations]
    layers = [o for o, family in zip(row.operations, families, strict=True) if family == "layer"]
    norms = [o for o, family in zip(row.operations, families, strict=True) if family == "norm"]
    return {
        "row": row.path,
        "simple": row.simple,
        "row_residual": row.residual,
        "row_layers": len(layers),
        "row_trainable": not all([o.facts.get("frozen", False) for o in layers]),
        "row_norm": bool(norms),
        "row_batch_norm": any([o.facts.get("batch_statistics") for o in norms]),
        "row_recurrent": "recurrent" in families,
        "row_attention": "attention" in families,
        "row_kinds": tuple(sorted({o.kind for o in row.operations})),
        "row_pole": read_pole(row.operations),
    }


def _faults(
    owner: Operation | ModuleCall, node: int | None, watched: Forward, backward: BackwardPass
) -> NodeFacts:
    first, stops, broken = watched.first_broken, backward.stops, backward.broken
    facts: NodeFacts = {}
    if own := [s for s in stops if s.owner is owner and (isinstance(owner, Operation) or s.node == node)]:
        stop = next((s for s in own if s.locked), own[0])
        facts |= {"kills": True, "kills_because": stop.because}
        facts |= {"starved": stop.starved, "locked": stop.locked}
    if isinstance(owner, Operation) and (owner is first or owner.handles.get("made_nonfinite")):
        facts |= {"produces": "forward", "nonfinite_first": owner is first}
    elif first is None and any(b is owner for b in broken):
        facts |= {
            "produces": "backward",
            "nonfinite_first": owner is broken[0],
            "nonfinite_kind": "NaN or infinity",
        }
    return facts
