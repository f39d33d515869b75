"""A depth axis: the cuts of the graph above one tensor, one for each operation, and what lies between them.

Notable: cuts inside the loss, and those of operations that only change the view, are left out; what they do
to the norm belongs to the row above them. No module is known by its class. What the loss reaches through a
gradient that the forward took itself has no axis: its path crosses each layer forth and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import torch

from unvanish.probes import operations
from unvanish.probes.calls import Call
from unvanish.probes.events import ModuleCall, Operation
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph, Node

MOST = 4  # axes
EMBEDDINGS, LAYERS = 6, 3  # of several, the first ones


@dataclass(frozen=True)
class ChainRow:
    """The operations between one cut of an axis and the next one towards the input."""

    path: str
    simple: bool
    residual: bool
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Chain:
    """`cuts`: every cut of the graph; `sites`: those of the axis; `rows[i]` lies below `sites[i]`."""

    name: str
    cuts: list[int]
    sites: list[int]
    rows: list[ChainRow]
    owners: list[Operation | ModuleCall]


def find_chains(graph: Graph, call: Call, watched: Forward) -> list[Chain]:
    """The depth axes, the longest first: above each float input, and above each embedding.

    If none has an operation between its ends, above the first layers too.
    """
    targets: dict[str, Node] = {
        n: torch.autograd.graph.get_gradient_edge(t).node for n, t in call.inputs.items()
    }
    embeddings = [o for o in watched.operations if o.kind == "embedding" and o.nodes[0] in graph.index]
    targets |= {f"{o.caller.path} (call {o.order})": o.nodes[0] for o in embeddings[:EMBEDDINGS]}
    found = [
        find_chain(graph, graph.index[node], watched, name)
        for name, node in targets.items()
        if node in graph.index and not watched.derivatives.bears(graph, node)
    ]
    if not any(len(c.sites) > 2 for c in found):
        layers = [
            o
            for o in watched.operations
            if o.family in ("layer", "recurrent")
            and o.nodes[0] in graph.index
            and not watched.derivatives.bears(graph, o.nodes[0])
        ]
        found += [find_chain(graph, graph.index[o.nodes[0]], watched, o.caller.path) for o in layers[:LAYERS]]
    return sorted((c for c in found if c.sites), key=lambda c: -len(c.sites))[:MOST]


def find_chain(graph: Graph, target: int, watched: Forward, name: str) -> Chain:
    """The dominators of a target node, merged by operation; empty if the loss does not reach it."""
    cuts = graph.cuts(target)
    sites: list[int] = []
    owners: list[Operation | ModuleCall] = []
    for i in cuts[:-1] if type(graph.nodes[target]).__name__ == "AccumulateGrad" else cuts:
        number = graph.nodes[i]._sequence_nr()
        if number >= watched.loss_start or number < watched.root.start:
            continue
        owner = watched.owner(number)
        view = isinstance(owner, Operation) and owner.kind in operations.VIEWS
        if view or (owners and owner is owners[-1] and isinstance(owner, Operation)):
            continue
        sites.append(i)
        owners.append(owner)
    if cuts and (not sites or sites[-1] != target):
        sites.append(target)
        owners.append(_owner(graph, target, watched))
    rows = [_row(graph, a, b, o, watched) for (a, b), o in zip(pairwise(sites), owners, strict=False)]
    return Chain(name, cuts, sites, rows, owners)


def _owner(graph: Graph, i: int, watched: Forward) -> Operation | ModuleCall:
    node: Any = graph.nodes[i]
    return watched.root if type(node).__name__ == "AccumulateGrad" else watched.owner(node._sequence_nr())


def _row(graph: Graph, top: int, bottom: int, own: Operation | ModuleCall, watched: Forward) -> ChainRow:
    inside = _between(graph, top, bottom)
    if inside == [top] and isinstance(own, Operation):
        return ChainRow(_path(own), True, False, () if own.kind in operations.VIEWS else (own,))
    made = (i for i in inside if graph.nodes[i]._sequence_nr() >= watched.root.start)
    owners = {id(o): o for o in (_owner(graph, i, watched) for i in made)}
    acting = [o for o in owners.values() if not (isinstance(o, Operation) and o.kind in operations.VIEWS)]
    simple = all(o is own for o in acting)
    recorded = tuple(o for o in acting if isinstance(o, Operation))
    path = _path(own) if simple else _common([_path(o) for o in acting if o is not own]) or _path(own)
    return ChainRow(path, simple, not simple and _identity(graph, top, bottom, inside, watched), recorded)


def _between(graph: Graph, top: int, bottom: int) -> list[int]:
    """The nodes on paths from one cut down to the next, the first included, the last not."""
    if bottom == top + 1 or graph.below[top] == (bottom,):
        return [top]
    reach = {bottom}
    for i in range(bottom - 1, top - 1, -1):
        if any(j in reach for j in graph.below[i]):
            reach.add(i)
    return sorted(reach - {bottom})


def _identity(graph: Graph, top: int, bottom: int, inside: Sequence[int], watched: Forward) -> bool:
    """Whether a path of additions and views alone leads from one cut to the next."""
    keep = operations.VIEWS | {"add", "sub", "add_n", "stack", "cat", "index", "getitem"} - {"cat"}
    own = {i for i in inside if graph.nodes[i]._sequence_nr() < watched.root.start}  # the clone of the input
    allowed = own | {i for i in inside if i == top or _is(_owner(graph, i, watched), keep)}
    if not _is(_owner(graph, top, watched), keep):
        return False
    seen, stack = {top}, [top]
    while stack:
        for j in graph.below[stack.pop()]:
            if j == bottom:
                return True
            if j in allowed and j not in seen:
                seen.add(j)
                stack.append(j)
    return False


def _is(owner: Operation | ModuleCall, kinds: set[str]) -> bool:
    return isinstance(owner, Operation) and owner.kind in kinds


def _path(owner: Operation | ModuleCall) -> str:
    return owner.caller.path if isinstance(owner, Operation) else owner.path


def _common(paths: Sequence[str]) -> str:
    """The longest common prefix of module paths, whole names only."""
    parts = [path.split(".") for path in paths if path]
    shared = takewhile(lambda names: len(set(names)) == 1, zip(*parts, strict=False))
    return ".".join(names[0] for names in shared)
