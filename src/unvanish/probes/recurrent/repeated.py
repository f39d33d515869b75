"""Loops without a module of their own: a state that a forward multiplies by the same weights at every step.

Notable:
- The operations of one module call that multiply by the same weights, or by the same other result, are one
  step each if each depends on the one before, and if all parameters that a step reads are those of the step
  before. So layers that differ are no loop, and neither is what adds the same to each of them.
- Each step must read something new: another part of the sequence. What is iterated to a fixed point, as in
  Sinkhorn's algorithm, forgets where it began, and shall.
- The state is what crosses from one step into the next: all that the later one reads and the earlier one
  made. For a cell with a memory that is the memory too, whatever its names.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any

from unvanish.probes import operations
from unvanish.probes.events import ModuleCall, Operation
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph, Node
from unvanish.probes.recurrent.states import LEAST

MULTIPLIES = operations.PRODUCTS | {"linear", "mul", "mv", "addmm", "lerp", "addcmul"}
VIEWS = (
    *("SelectBackward0", "SliceBackward0", "UnsqueezeBackward0", "ExpandBackward0", "TBackward0"),
    *("SplitBackward0", "UnbindBackward0"),
)
LOOKUPS = ("EmbeddingBackward0", "IndexBackward0", "GatherBackward0", "IndexSelectBackward0")
DEEP = 3  # views between an operation and what it shares with the next


def find_repeated(watched: Forward, graph: Graph, bodies: Collection[str]) -> dict[str, list[ModuleCall]]:
    """The steps of every such loop, as calls of the module that it is in, by that module's path.

    `bodies`: the modules that are known to be steps; what is in them, or around them, is left to them.
    """
    found: dict[str, list[ModuleCall]] = {}
    for made in _group(watched, graph):
        path = made[0].caller.path
        if path in found or any(_holds(path, body) or _holds(body, path) for body in bodies):
            continue
        if _is_sequential(made, graph) and _reads_the_same(made, watched):
            found |= {path: calls} if len(calls := list(_cut(made, graph))) >= LEAST else {}
    return found


def is_gated(calls: Sequence[ModuleCall], graph: Graph) -> bool:
    """Whether each step multiplies by a sigmoid, so that it opens and shuts."""
    first, last = (c.outputs[0][0]._sequence_nr() for c in (calls[0], calls[-1]))
    products = (
        node for node in graph.nodes if first < node._sequence_nr() <= last and node.name() == "MulBackward0"
    )
    shut = sum(any(_is_sigmoid(_look_through(b)) for b, _ in n.next_functions) for n in products)
    return shut >= len(calls) - 1


def _look_through(node: Node | None) -> Node | None:
    """A node, or what lies below it if it is a view."""
    for _ in range(DEEP):
        if node is None or node.name() not in VIEWS:
            break
        node = node.next_functions[0][0]
    return node


def _is_sigmoid(node: Node | None) -> bool:
    return node is not None and node.name() == "SigmoidBackward0"


def _holds(path: str, inner: str) -> bool:
    return path in ("", inner) or inner.startswith(path + ".")


def _group(watched: Forward, graph: Graph) -> Iterator[list[Operation]]:
    """Operations of one call, kind and shape that multiply by the same, the most numerous first."""
    alike: dict[tuple[object, ...], list[Operation]] = defaultdict(list)
    for o in watched.operations:
        if o.kind in MULTIPLIES and o.nodes:
            alike[id(o.caller), o.kind, o.facts.get("shape")].append(o)
    groups: dict[tuple[object, ...], list[Operation]] = defaultdict(list)
    for key, made in alike.items():
        for o in made if len(made) >= LEAST else ():
            if o.nodes[0] in graph.index:
                for shared in _find_factors(o):
                    groups[*key, shared].append(o)
    yield from sorted((made for made in groups.values() if len(made) >= LEAST), key=len, reverse=True)


def _find_factors(o: Operation) -> set[object]:
    """What an operation multiplies by: parameters by name, other results by their node, through views."""
    found: set[object] = {*o.parameters}
    for below, _ in o.nodes[0].next_functions:
        node = _look_through(below)
        found |= {node} if node is not None else set()
    return found


def _is_sequential(made: Sequence[Operation], graph: Graph) -> bool:
    """Whether the second depends on the first, and the last on the one before."""
    ends = [o.nodes[0] for o in made]
    return graph.depends(ends[1], ends[0]) and graph.depends(ends[-1], ends[-2])


def _reads_the_same(made: Sequence[Operation], watched: Forward) -> bool:
    """Whether every step but the first reads the same parameters."""
    read = [
        {name for o in watched.operations[a.order : b.order] for name in o.parameters}
        for a, b in pairwise(made)
    ]
    return all(names == read[0] for names in read)


def _cut(made: Sequence[Operation], graph: Graph) -> list[ModuleCall]:
    """Each step as a call whose outputs are what is read of it after it; none if the steps read nothing new.

    What led to the first step is no output of it.
    """
    numbers = [o.nodes[0]._sequence_nr() for o in made]
    ends: dict[int, dict[tuple[Node, int], None]] = defaultdict(dict)
    news: dict[int, set[object]] = defaultdict(set)
    for node in graph.nodes:
        step = bisect_left(numbers, node._sequence_nr())
        if 1 < step < len(numbers) and node.name() in LOOKUPS:
            news[step].add(node)
        for below, which in node.next_functions if step > 1 else ():
            before = len(numbers) if below is None else bisect_left(numbers, below._sequence_nr())
            if below is not None and before == step - 1:
                ends[step - 1][below, which] = None
            elif below is not None and before < 2 and step < len(numbers):
                news[step].add((below, which, _place(node)))
    fresh = sum(news[step] != news[step - 1] for step in range(3, len(numbers)))
    if fresh < len(numbers) // 2:
        return []
    caller = made[0].caller
    return [
        ModuleCall(caller.path, step, caller.module, caller.parent, numbers[step], tuple(own))
        for step, own in sorted(ends.items())
    ]


def _place(node: Any) -> object:
    """Which part of what it reads a view is."""
    return getattr(node, "_saved_index" if node.name() == "SelectBackward0" else "_saved_start", None)
