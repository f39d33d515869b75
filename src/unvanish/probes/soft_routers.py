"""Soft routers: weights that mix all experts, and why they do not tell tokens or experts apart.

Notable:
- A softmax or a sigmoid is a router's if a layer with as many outputs as there are experts around it made its
  scores, and if its result multiplies what came of them. So an attention, or a classifier's head, is none.
- A router that begins at zero is uniform and learns; so only what keeps it so is named: a constant input, a
  factor, scores or input far too small, a second softmax, experts that are copies of each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.loss_facts import RouterFault, SoftRouterFacts
from unvanish.probes.events import Operation
from unvanish.probes.passes import BackwardPass, ForwardPass
from unvanish.probes.routers import around, count_experts
from unvanish.probes.saved import find_saved

KINDS = ("softmax", "sigmoid")
VIEWS = {
    f"{name}Backward0"
    for name in (
        *(
            "View",
            "UnsafeView",
            "ReshapeAlias",
            "Unsqueeze",
            "Squeeze",
            "Expand",
            "Permute",
            "Transpose",
            "T",
        ),
        *("Select", "Slice", "Split", "Unbind", "Alias", "Clone", "ToCopy"),
    )
} | {"SqueezeBackward1"}
LAYERS = {"AddmmBackward0": "_saved_mat1", "MmBackward0": "_saved_self"}
MIXING = ("MulBackward0", "BmmBackward0", "MmBackward0")
STEPS = 10
FEWEST = 8  # rows
ALONE, CERTAIN = 0.95, 0.9  # of the rows, to one expert; of the weight
FACTOR = 0.02  # a temperature of 50: logits of size one make weights alike to 1 % then
FAINT = 1e-3  # the size of what a router reads, of which its weights make no more


def find_soft_routers(forward: ForwardPass, backward: BackwardPass) -> list[SoftRouterFacts]:
    """What keeps the soft routers of a forward from telling tokens or experts apart."""
    watched, graph, found = forward.watched, backward.graph, list[SoftRouterFacts]()
    parents: dict[Any, list[Any]] = {}
    experts: dict[int, set[int]] = {}
    for o in watched.operations if graph is not None else ():
        shape = o.facts.get("shape", ())
        if o.kind not in KINDS or o.order >= watched.loss_order or len(shape) < 2 or shape[-1] < 2:
            continue
        if graph is None or o.nodes[0] not in graph.index:
            continue
        modules = list(around(o.caller))
        if id(modules[0]) not in experts:
            experts[id(modules[0])] = {n for m in modules for n in count_experts(m)}
        if shape[-1] not in experts[id(modules[0])]:
            continue
        router = _follow(o, shape[-1])
        if router is None:
            continue
        parents = parents or _turn(graph.nodes)
        if _mixes(o.nodes[0], parents) and (fault := _judge(o, router, modules, forward)) is not None:
            found.append({"path": o.caller.path, "experts": shape[-1], "why": fault[0], "number": fault[1]})
    return found


def _turn(nodes: Iterable[Any]) -> dict[Any, list[Any]]:
    """The nodes that read each node."""
    parents: dict[Any, list[Any]] = defaultdict(list)
    for node in nodes:
        for below, _ in node.next_functions:
            if below is not None:
                parents[below].append(node)
    return parents


def _mixes(node: Any, parents: dict[Any, list[Any]]) -> bool:
    """Whether a result multiplies something else that has a gradient, but for views."""
    todo = [(node, STEPS)]
    while todo:
        at, left = todo.pop()
        for above in parents.get(at, ()):
            name = type(above).__name__
            if name in MIXING and sum(n is not None for n, _ in above.next_functions) > 1:
                return True
            if left and (name in VIEWS or name in ("MulBackward0", "DivBackward0")):
                todo.append((above, left - 1))
    return False


def _follow(o: Operation, experts: int) -> tuple[Tensor, float, bool, Any] | None:
    """What the layer of a router read, the factor of its scores, whether it is normalised, its node."""
    node: Any = _below(o.nodes[0])
    factor, twice = 1.0, False
    for _ in range(STEPS):
        name = type(node).__name__
        if name in LAYERS:
            read = find_saved(node, LAYERS[name])
            wide = node._input_metadata[0].shape[-1] == experts
            return (read.detach(), factor, twice, node) if wide and read is not None else None
        if name in ("MulBackward0", "DivBackward0"):
            number = find_saved(node, "_saved_other")
            learned = sum(n is not None for n, _ in node.next_functions) > 1
            if learned or number is None or number.numel() > 1 or not float(number):
                return None
            factor *= float(number) if name == "MulBackward0" else 1 / float(number)
        elif name == "SoftmaxBackward0":
            twice = True
        elif name not in VIEWS and name not in ("AddBackward0", "SubBackward0"):
            return None
        node = _below(node)
    return None


def _below(node: Any) -> Any:
    edges = [n for n, _ in node.next_functions if n is not None]
    return edges[0] if len(edges) == 1 else None


@torch.no_grad()
def _judge(
    o: Operation, router: tuple[Tensor, float, bool, Any], modules: list[nn.Module], forward: ForwardPass
) -> tuple[RouterFault, float] | None:
    read, factor, twice, layer = router
    result = find_saved(o.nodes[0], "_saved_result")
    if result is None:
        return None
    weights = result.detach().double().flatten(0, -2)
    batch = forward.call.batch_size or 0
    if len(weights) == 1 and batch >= FEWEST and _reaches_input(layer, forward):
        return "one for all", float(batch)
    if len(weights) < FEWEST:
        return None
    if bool((read == read.flatten()[0]).all()):
        return "constant", float(read.flatten()[0])
    if twice:
        return "twice", float(weights.max())
    if abs(factor) <= FACTOR:
        return "factor", abs(factor)
    if 0 < float(read.double().square().mean().sqrt()) < FAINT:
        return "faint", float(read.double().square().mean().sqrt())
    spread = float((weights - weights.mean(1, keepdim=True)).abs().max())
    if spread < 1e-6 and _are_copies(modules, weights.shape[1]):
        return "copies", float(weights.shape[1])
    top = weights.max(1)
    share = float(torch.bincount(top.indices, minlength=weights.shape[1]).max()) / len(weights)
    if o.kind == "softmax" and share > ALONE and float(top.values.mean()) > CERTAIN:
        return "alone", share
    return None


def _reaches_input(node: Any, forward: ForwardPass) -> bool:
    """Whether what a layer read depends on the batch."""
    leaves = {id(x) for x in forward.call.inputs.values()}
    todo, seen = [node], set[Any]()
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        if id(getattr(at, "variable", None)) in leaves:
            return True
        todo += [n for n, _ in at.next_functions if n is not None]
    return False


def _are_copies(modules: list[nn.Module], experts: int) -> bool:
    """Whether the experts around a router hold the same numbers."""
    return any(_are_equal(group) for group in _list_experts(modules, experts))


def _list_experts(modules: list[nn.Module], experts: int) -> Iterator[list[list[Tensor]]]:
    for module in modules:
        for child in (module, *module.children()):
            if isinstance(child, nn.ModuleList) and len(child) == experts:
                yield [list(expert.parameters()) for expert in child]
            for p in child.parameters(recurse=False):
                if p.ndim == 3 and p.shape[0] == experts:
                    yield [[part] for part in p]


def _are_equal(group: list[list[Tensor]]) -> bool:
    first = group[0]
    return bool(first) and all(
        len(own) == len(first) and all(torch.equal(a, b) for a, b in zip(own, first, strict=True))
        for own in group[1:]
    )
