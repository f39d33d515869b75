"""Leaves of the graph that learn and are no parameters of the model: where they are kept, or were made.

Notable:
- Innocent are what the batch gives, what an inner gradient is taken of (collocation points, adversaries),
  what was taken off the graph and made a leaf again, states and noise with a sample axis, and a zero that
  sums start from.
- They are looked for in the attributes of the model's modules, and in the variables that its forward, the
  functions among its attributes and the loss can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Literal

from torch import Tensor, nn

from unvanish.core.facts import ForeignFacts
from unvanish.probes.events import Operation
from unvanish.probes.passes import BackwardPass, ForwardPass, Specimen

DEPTH = 4  # containers in containers
FEW = 8  # nodes between a kept tensor and the leaves that it was made of
TABLES = ("_parameters", "_modules")  # of a module; what they hold is known
Place = Literal["attribute", "function", "loss", "made"]
Kept = tuple[str, Place, bool]
Named = Iterator[tuple[str, Tensor, bool]]  # name, tensor, whether a module holds it


def find_foreign(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> list[ForeignFacts]:
    """The facts of every such leaf that the loss reaches, in the order of the graph."""
    if backward.graph is None:
        return []
    known = {id(p) for p in specimen.parameters.values()}
    known |= {id(x) for x in (*forward.call.inputs.values(), *forward.call.given)}
    known |= forward.watched.derivatives.wanted
    nodes: Any = backward.graph.nodes
    places = {i: place for i, place in backward.graph.leaves.items() if i not in known}
    strange = {i: nodes[place].variable for i, place in places.items()}
    strange = {i: v for i, v in strange.items() if not forward.watched.departures.carries(v)}
    if not strange:
        return []
    users = _find_users(backward, forward, strange)
    kept = _find_kept(specimen, forward, strange)
    held = None
    if specimen.optimizer is not None:
        held = {id(p) for group in specimen.optimizer.param_groups for p in group["params"]}
    found = [_describe(v, kept.get(i), users.get(i, ()), forward, held) for i, v in strange.items()]
    return [facts for facts in found if facts is not None]


def _describe(
    leaf: Tensor,
    kept: Kept | None,
    users: Sequence[Operation],
    forward: ForwardPass,
    held: set[int] | None,
) -> ForeignFacts | None:
    """The facts of one leaf; None if it is innocent, or nothing is known of where it comes from."""
    watched = forward.watched
    born = watched.departures.born.get(leaf.data_ptr())
    parameter = isinstance(leaf, nn.Parameter)
    in_loss = bool(users) and all(o.order >= watched.loss_order for o in users)
    size = forward.call.batch_size
    if born is not None and not parameter:
        sampled = leaf.ndim > 1 and size in leaf.shape
        if sampled or in_loss or (leaf.numel() == 1 and not bool(leaf.detach().any())):
            return None
    if kept is None and born is None:
        return None
    name, found, inside = kept or ("", "made", False)
    place: Place = found if born is None else "made"
    reader = next((o.caller.path for o in users), "")
    return {
        "path": name or f"{reader}.(made in its forward)".lstrip("."),
        "place": place,
        "in_module": inside,
        "in_loss": in_loss,
        "line": born or "",
        "numel": leaf.numel(),
        "optimised": None if held is None else id(leaf) in held,
    }


def _find_users(
    backward: BackwardPass, forward: ForwardPass, leaves: Mapping[int, Tensor]
) -> dict[int, list[Operation]]:
    """The operations that read each leaf."""
    graph = backward.graph
    found: dict[int, list[Operation]] = {}
    if graph is None:
        return found
    nodes: Any = graph.nodes
    wanted = {graph.leaves[i]: i for i in leaves if i in graph.leaves}
    for k, below in enumerate(graph.below):
        for j in below:
            if j in wanted:
                owner = forward.watched.owner(nodes[k]._sequence_nr())
                if isinstance(owner, Operation):
                    found.setdefault(wanted[j], []).append(owner)
    return found


def _find_kept(specimen: Specimen, forward: ForwardPass, leaves: Mapping[int, Tensor]) -> dict[int, Kept]:
    """Name, place ("attribute", "function", "loss") and whether a module holds it, by id."""
    found: dict[int, Kept] = {}

    def take(place: Place, named: Named) -> None:
        for name, tensor, inside in named:
            for leaf in (tensor, *_find_below(tensor)):
                if id(leaf) in leaves:
                    found.setdefault(id(leaf), (name, place, inside))

    known = {id(m) for _, m in specimen.modules}
    for path, module in specimen.modules:
        own = f"{path}." if path else ""
        for key, value in vars(module).items():
            if key not in TABLES:
                prefix = own if key == "_buffers" else f"{own}{key}"
                take("attribute", _search(value, prefix, known, DEPTH))
        for key, child in module._modules.items():
            if child is not None and id(child) not in known:  # registered in this forward
                take("attribute", _search(child, f"{own}{key}", known, DEPTH))
    for module in {type(m): m for _, m in specimen.modules}.values():
        if not type(module).__module__.startswith("torch."):
            take("function", _see(type(module).forward, known))
    take("loss", _search(specimen.loss, "", known, DEPTH))
    return found


def _find_below(tensor: Tensor) -> Iterator[Tensor]:
    """The leaves that a kept tensor was made of in a few steps, as by `.to()` of a parameter."""
    todo: list[Any] = [] if tensor.grad_fn is None else [tensor.grad_fn]
    for node in todo:
        if len(todo) > FEW:
            return
        if (variable := getattr(node, "variable", None)) is not None:
            yield variable
        todo += [n for n, _ in node.next_functions if n is not None]


def _search(value: Any, name: str, known: set[int], depth: int) -> Named:
    """The tensors in a value, by the names that lead to them."""
    if isinstance(value, Tensor):
        yield name, value, False
    elif isinstance(value, nn.Module):
        if id(value) not in known:
            yield from ((f"{name}.{n}".lstrip("."), p, True) for n, p in value.named_parameters())
    elif not depth:
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            here = f"{name}{key}" if not name or name.endswith(".") else f"{name}[{key!r}]"
            yield from _search(item, here, known, depth - 1)
    elif isinstance(value, (list, tuple, set)):
        for k, item in enumerate(value):
            yield from _search(item, f"{name}[{k}]", known, depth - 1)
    elif isinstance(value, partial):
        yield from _search((value.func, value.args, value.keywords), name, known, depth - 1)
    elif isinstance(value, MethodType):
        yield from _search((value.__self__, value.__func__), name, known, depth - 1)
    elif isinstance(value, FunctionType):
        yield from _see(value, known, depth - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not _is_of_torch(value):
        yield from _search(vars(value), f"{name}." if name else "", known, min(depth - 1, 2))


def _is_of_torch(value: Any) -> bool:
    """Whether somebody else's callable is it: what it holds is its own business."""
    return callable(value) and type(value).__module__.partition(".")[0] in ("torch", "functools", "builtins")


def _see(function: Any, known: set[int], depth: int = 2) -> Named:
    """The tensors that a function sees from outside: in its closure, and of the globals it names."""
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            value = cell.cell_contents
        except ValueError:  # not yet filled
            continue
        if name not in ("self", "__class__"):
            yield from _search(value, name, known, depth)
    for name in code.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, (Tensor, nn.Module, list, tuple, dict)):
            yield from _search(value, name, known, depth)
