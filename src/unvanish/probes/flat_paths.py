"""Operations without a slope that keep one term of the loss from parameters which another term teaches.

Notable:
- All gradients are there, from a penalty or a divergence, and nothing is zero: the data teach these weights
  nothing. A draw by torch.normal, a rounding, and a look-up at the nearest place pass zeros at any input.
- A path around the operation makes it innocent: x - floor(x), sign(x) * sqrt(|x|), a likelihood of a draw.
"""

from __future__ import annotations

from typing import Any

from unvanish.core.loss_facts import FlatPathFacts
from unvanish.probes.dead_terms import ADDITIVE, FLAT
from unvanish.probes.events import Operation
from unvanish.probes.graph import Graph
from unvanish.probes.passes import BackwardPass, ForwardPass, Specimen
from unvanish.probes.run_forward import find_lines

WHOLE = FLAT | {f"NormalBackward{i}" for i in range(4)} | {"BernoulliBackward0", "PoissonBackward0"}
SAMPLED = {"GridSampler2DBackward0", "GridSampler3DBackward0"}
NORMALISING = ("SoftmaxBackward0", "LogSoftmaxBackward0", "DivBackward0")
PASSED = ("AddBackward0", "ClampBackward1", "ClampMinBackward0", "ExpandBackward0")  # of a number, of a floor
NEAREST = 1  # torch's number for this mode
FACTORS = ("MulBackward0", "DivBackward0")
Edges = set[tuple[int, int]]


def find_flat_paths(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> list[FlatPathFacts]:
    """The first such operation, with its line, for which the forward runs once more."""
    graph, watched = backward.graph, forward.watched
    flat = set() if graph is None else _find_edges(graph)
    if graph is None or not flat:
        return []
    terms = _find_terms(graph, watched.loss_start)
    if len(terms) < 2:
        return []
    open_ways = {t: _reach(graph, t, flat) for t in terms}
    names = {
        i: name
        for i, node in enumerate(graph.nodes)
        if (name := watched.parameters.names.get(id(getattr(node, "variable", None)))) is not None
    }
    for term in terms:
        taught = set().union(*(ways for t, ways in open_ways.items() if t != term))
        lost = [i for i in (_reach(graph, term, set()) - open_ways[term]) & taught if i in names]
        if lost:
            at = min(i for i, j in flat if i in open_ways[term] and set(lost) & _reach(graph, j, set()))
            return [_describe(graph, at, tuple(names[i] for i in sorted(lost)), specimen, forward)]
    return []


def _find_edges(graph: Graph) -> Edges:
    """The edges of the graph along which nothing but zeros goes."""
    found: Edges = set()
    for i, node in enumerate(graph.nodes):
        name = type(node).__name__
        if name in WHOLE:
            found |= {(i, j) for j in graph.below[i]}
        elif name in SAMPLED and getattr(node, "_saved_interpolation_mode", 0) == NEAREST:
            grid = (
                graph.index.get(node.next_functions[1][0]) if node.next_functions[1][0] is not None else None
            )
            found |= set() if grid is None else {(i, grid)}
        elif name in NORMALISING and _is_of_one(node):
            found |= {(i, j) for j in graph.below[i]}
    return found


def _is_of_one(node: Any) -> bool:
    """Whether a node normalises each number by itself: a softmax over one, x / x.sum(-1) of one x."""
    name = type(node).__name__
    if name in ("SoftmaxBackward0", "LogSoftmaxBackward0"):
        shape, axis = node._input_metadata[0].shape, node._saved_dim
        return (
            bool(shape) and shape[axis - (1 << 64) if axis >= 1 << 63 else axis] == 1
        )  # torch keeps it unsigned
    if name != "DivBackward0" or len(node.next_functions) != 2:
        return False
    over, total = (n for n, _ in node.next_functions)
    while type(total).__name__ in PASSED:
        total = total.next_functions[0][0]
    if type(total).__name__ != "SumBackward1" or total.next_functions[0][0] is not over:
        return False
    sizes = total._saved_self_sym_sizes
    return all(sizes[a - (1 << 64) if a >= 1 << 63 else a] == 1 for a in total._saved_dim)


def _find_terms(graph: Graph, start: int) -> list[int]:
    """What the loss adds up, single numbers or one for each sample; its own operations alone are opened."""
    found: list[int] = []
    seen: set[int] = set()
    stack = [0]
    while stack:
        i = stack.pop()
        if i in seen:
            continue
        seen.add(i)
        node: Any = graph.nodes[i]
        below, name = graph.below[i], type(node).__name__
        if name not in ADDITIVE or node._sequence_nr() < start or (name in FACTORS and len(below) > 1):
            found.append(i)
        else:
            stack += below
    return found


def _reach(graph: Graph, start: int, closed: Edges) -> set[int]:
    seen: set[int] = set()
    stack = [start]
    while stack:
        i = stack.pop()
        if i not in seen:
            seen.add(i)
            stack += [j for j in graph.below[i] if (i, j) not in closed]
    return seen


def _describe(
    graph: Graph, at: int, names: tuple[str, ...], specimen: Specimen, forward: ForwardPass
) -> FlatPathFacts:
    watched, number = forward.watched, graph.nodes[at]._sequence_nr()
    owner, kind, line = watched.owner(number), type(graph.nodes[at]).__name__.partition("Backward")[0], ""
    path = "the loss" if number >= watched.loss_start else getattr(owner, "path", "")
    if isinstance(owner, Operation):
        kind, line = owner.kind, find_lines(specimen, [owner.order]).get(owner.order, ("", ""))[1]
        path = path or owner.caller.path
    return {"kind": kind, "path": path, "line": line, "parameters": names}
