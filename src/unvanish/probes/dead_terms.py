"""Terms of the loss that depend on what the model computes and carry no gradient.

Notable:
- The loss is taken apart along additions, scalings and means of single numbers; only what is added there is a
  term. A stop-gradient that is a target, a weight or a baseline is multiplied or compared, and never found.
- A term that was made of the very thing it is added to is a trick on the value: x + (y - x).detach()
- A loss of torch's own that compares two things without a gradient, and is added, is one too.
- A number of Python is a term if it is one that `.item()` gave, or one less it, times a round factor; or if
  the loss went through NumPy and it is no round factor of a constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from unvanish.core.facts import DeadTermFacts
from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.departures import Departure
from unvanish.probes.events import OperationCall
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph, Node
from unvanish.probes.passes import BackwardPass, ForwardPass

SUMS = {"AddBackward0", "SubBackward0", "RsubBackward1", "StackBackward0", "CatBackward0"}
SCALES = {"MulBackward0", "DivBackward0", "NegBackward0", "MeanBackward0", "SumBackward0", "SumBackward1"}
SHAPES = {
    "ViewBackward0",
    "ReshapeAliasBackward0",
    "UnsafeViewBackward0",
    "SqueezeBackward0",
    "CloneBackward0",
}
CASTS = {"SqueezeBackward1", "UnsqueezeBackward0", "ToCopyBackward0", "AliasBackward0", "ExpandBackward0"}
ADDITIVE = SUMS | SCALES | SHAPES | CASTS
FLAT = {
    "RoundBackward0",
    "RoundBackward1",
    "SignBackward0",
    "FloorBackward0",
    "CeilBackward0",
    "TruncBackward0",
}
ROUNDS = {"round", "sign", "floor", "ceil", "trunc"}
DIGITS = 3  # of a round factor
CONSTANTS = (1.0, math.pi, math.sqrt(math.pi), math.e, math.log(2), math.log(10), math.log(2 * math.pi))
EXACT = 1e-9  # relative: arithmetic in float64


def find_dead_terms(forward: ForwardPass, backward: BackwardPass) -> list[DeadTermFacts]:
    """The facts of every such term."""
    graph, watched = backward.graph, forward.watched
    idle = watched.loss_calls.idle
    if graph is None or not (watched.sums or idle or any(o.kind in ROUNDS for o in watched.operations)):
        return []
    additive = _take_apart(graph)
    inputs = {id(x) for x in forward.call.inputs.values()}
    found = [
        term
        for call, node in watched.sums
        if node in graph.index and graph.index[node] in additive
        for term in _judge_sum(call, node, watched, inputs)
    ]
    found += _find_idle(graph, additive, watched) if idle and not found else []
    return found + _find_flat(graph, additive, watched, inputs)


def _find_idle(graph: Graph, additive: set[int], watched: Forward) -> list[DeadTermFacts]:
    """Losses of torch's own that are added and compare what does not learn, as a teacher with itself."""
    calls = watched.loss_calls
    found: list[DeadTermFacts] = []
    for call, operation in calls.made:
        node = operation.nodes[0]
        if call.kind in ("add", "sub") and node in graph.index and graph.index[node] in additive:
            for result, kind, line in (calls.idle[id(t)] for t in call.args if id(t) in calls.idle):
                found.append({"how": f"idle {kind}", "path": "the loss", "line": line, "adds": float(result)})
    return found


def _take_apart(graph: Graph) -> set[int]:
    """The nodes that only add and scale single numbers on their way to the loss."""
    found: set[int] = set()
    stack = [0]
    while stack:
        i = stack.pop()
        node: Any = graph.nodes[i]
        name = type(node).__name__
        if i in found or name not in ADDITIVE or _size(node) > (1 if name not in SUMS else operations.FEW):
            continue
        below = [j for j in graph.below[i]]
        if name in ("MulBackward0", "DivBackward0") and len(below) > 1:
            continue
        found.add(i)
        stack += below
    return found


def _size(node: Any) -> int:
    return math.prod(node._input_metadata[0].shape)


def _judge_sum(
    call: OperationCall, node: Node, watched: Forward, inputs: set[int]
) -> Iterable[DeadTermFacts]:
    departures = watched.departures
    parts = [*tensors_in(call.args, 2)]
    learning = [t.grad_fn for t in parts if t.grad_fn is not None]
    for tensor in parts:
        value = float(tensor.detach().sum()) if not tensor.requires_grad and tensor.numel() == 1 else 0.0
        cuts = [departures.cuts[k] for k in departures.carries(tensor)]
        if value and (cut := _choose(cuts, learning, inputs)):
            yield _describe(cut, value)
    for number in call.args:
        if isinstance(number, float) and number:
            cuts = [departures.cuts[k] for v, k in departures.values if _is_multiple(number, (v, 1 - v))]
            if not cuts and not _is_multiple(number, CONSTANTS):
                arrays = (departures.cuts[k] for k in sorted(departures.numbers))
                cuts = [cut for cut in arrays if cut.facts["path"] == "the loss"]
            if cut := _choose(cuts, learning, inputs):
                yield _describe(cut, number)


def _choose(cuts: Iterable[Departure], learning: Iterable[Node], inputs: set[int]) -> Departure | None:
    """The first cut that took off a value that depends on a parameter; None if the sum only plays a trick."""
    known = {*learning}
    for cut in cuts:
        below = _find_below(cut.sources)
        if below & known:
            return None
        leaves = (getattr(node, "variable", None) for node in below)
        if cut.names or any(v is not None and id(v) not in inputs for v in leaves):
            return cut
    return None


def _find_below(start: Iterable[Node]) -> set[Node]:
    seen: set[Node] = set()
    stack = [*start]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [b for b, _ in node.next_functions if b is not None]
    return seen


def _is_multiple(number: float, bases: Iterable[float]) -> bool:
    """Whether a number is one of some times a factor of few digits."""
    for base in bases:
        if base and math.isfinite(number / base):
            factor = number / base
            near = float(f"{factor:.{DIGITS}g}")
            if near and abs(factor - near) <= EXACT * abs(near):
                return True
    return False


def _describe(cut: Departure, value: float) -> DeadTermFacts:
    facts = cut.facts
    return {"how": facts["how"], "path": facts["path"], "line": facts["line"], "adds": value}


def _find_flat(graph: Graph, additive: set[int], watched: Forward, inputs: set[int]) -> list[DeadTermFacts]:
    """Terms that reach parameters, and only through operations without a slope."""
    nodes: Any = graph.nodes
    flat = {i for i, node in enumerate(nodes) if type(node).__name__ in FLAT}
    if not flat:
        return []
    terms = sorted({j for i in additive for j in graph.below[i] if j not in additive})
    found: list[DeadTermFacts] = []
    for term in terms:
        if not _reaches(graph, term, flat, inputs) and _reaches(graph, term, set(), inputs):
            first = next(i for i in sorted(_below(graph, term)) if i in flat)
            owner = watched.owner(nodes[first]._sequence_nr())
            kind = getattr(owner, "kind", type(nodes[first]).__name__.removesuffix("Backward0").lower())
            late = nodes[first]._sequence_nr() >= watched.loss_start
            path = "the loss" if late else getattr(getattr(owner, "caller", owner), "path", "")
            found.append({"how": kind, "path": path, "line": "", "adds": math.nan})
    return found


def _below(graph: Graph, start: int, closed: frozenset[int] | set[int] = frozenset()) -> set[int]:
    seen: set[int] = set()
    stack = [start]
    while stack:
        i = stack.pop()
        if i not in seen and i not in closed:
            seen.add(i)
            stack += graph.below[i]
    return seen


def _reaches(graph: Graph, start: int, closed: set[int], inputs: set[int]) -> bool:
    """Whether a parameter lies below a node, on a way around the closed ones."""
    nodes: Any = graph.nodes
    leaves = (getattr(nodes[i], "variable", None) for i in _below(graph, start, closed))
    return any(isinstance(v, Tensor) and id(v) not in inputs for v in leaves)
