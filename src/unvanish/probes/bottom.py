"""Whether a loss has no least value: what is convex enters it with a minus, and nothing holds it.

Notable:
- The sign: on the way from the loss through sums, means and factors stands a square or an exponential whose
  gradient is negative, and the same for all numbers; weighed by rewards it differs from sample to sample.
- The proof: the result of the layer below it is moved down the gradient by 1, 16, 64 and 256 of its size, in
  one more forward each, so that all that reads it moves too; then what the loss reads alone, as of a code
  that a decoder reads as well and may scale. A loss that falls faster than in proportion throughout falls
  for ever; those of critics and policies fall in proportion.
- What a sigmoid, a tanh, a softmax or a norm bounds is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from unvanish.core.loss_facts import BottomFacts
from unvanish.probes import calls, operations
from unvanish.probes.events import Operation
from unvanish.probes.passes import BackwardPass, ForwardPass, Specimen
from unvanish.probes.run_forward import Nudge, find_lines, run_moved

REACHES = (1.0, 16.0, 64.0, 256.0)  # times the size of what is moved
EVEN = 1e-3  # of the largest: gradients that differ by less are the same
MOST = 64  # nodes between the loss and its squares
TRIED = 3  # results that are moved
DEEP = 24  # nodes below a square
LINEAR = (
    "Mean", "Sum", "Add", "Sub", "Rsub", "Neg", "Mul", "Div", "View", "UnsafeView", "ReshapeAlias",
    "Unsqueeze", "Squeeze", "Select", "Slice", "Stack", "Cat", "Expand", "Clone", "Transpose", "Permute",
    "Alias", "Nansum",
)  # fmt: skip
SPLITS = ("Split", "SplitWithSizes", "Unbind")  # of several results, each moved by itself
MEASURES = ("LinalgVectorNorm", "Norm", "Cdist")
Maker = tuple[Operation, Any, int]  # an operation, its node, and which of its results
MOVED = ("layer", "recurrent")  # families whose results nothing bounds


def find_bottom(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> BottomFacts | None:
    """How a loss falls without end; None if it has a least value, or if nothing speaks against one."""
    if backward.graph is None or forward.overflow is not None:
        return None
    pieces = list(_find_pieces(forward.root.grad_fn))
    if not pieces:
        return None
    edges: list[Any] = [GradientEdge(node, 0) for node in pieces]
    gradients = torch.autograd.grad(forward.root, edges, retain_graph=True, allow_unused=True)
    lowered = [
        (node, g < 0)
        for node, g in zip(pieces, gradients, strict=True)
        if g is not None and (_is_lowered(g) or (_is_parted(g) and _compares(node)))
    ]
    for node, apart in lowered:
        makers = _find_makers(node, forward)
        joint = _list_joint(makers, [piece for piece, _ in lowered], forward)
        for some in [*([maker] for maker in makers[:TRIED]), *joint]:
            if fall := _measure(some, apart, specimen, forward):
                kind, line = _name_piece(node, specimen, forward)
                return {"kind": kind, "source": line, "power": fall}
    return None


def _list_joint(makers: list[Maker], pieces: list[Any], forward: ForwardPass) -> list[list[Maker]]:
    """All results of a layer that is called several times, as on two views, if the first piece reads one."""
    every = [maker for piece in pieces for maker in _find_makers(piece, forward)]
    own = makers[0][0].caller.path if makers else None
    some = {maker[0].order: maker for maker in every if maker[0].caller.path == own}
    return [list(some.values())] if 1 < len(some) <= TRIED else []


def _find_pieces(root: Any) -> Iterator[Any]:
    """Squares and exponentials that sums, means and factors alone lead to."""
    todo: list[Any] = [root]
    seen: set[Any] = set()
    while todo and len(seen) < MOST:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name, edges = _name(node), [n for n, _ in node.next_functions]
        if name == "Exp" or (name == "Pow" and _is_even(node)) or (name == "Mul" and _is_square(node)):
            yield node
        elif name == "Div":
            todo.append(edges[0])
        elif name in LINEAR and not (name == "Mul" and all(n is not None for n in edges)):
            todo += edges


def _name(node: Any) -> str:
    return type(node).__name__.rstrip("0123456789").removesuffix("Backward")


def _is_even(node: Any) -> bool:
    power = getattr(node, "_saved_exponent", None)
    return isinstance(power, (int, float)) and power > 1 and power % 2 == 0


def _is_square(node: Any) -> bool:
    first, *rest = node.next_functions
    return len(rest) == 1 and first[0] is not None and first == rest[0]


def _is_lowered(gradient: Tensor) -> bool:
    """Whether all numbers are to grow alike, or are left alone."""
    taken = gradient.detach()[gradient != 0]
    if not taken.numel() or not bool((taken < 0).all()):
        return False
    return bool((taken.max() - taken.min()) <= EVEN * taken.abs().max())


def _find_makers(piece: Any, forward: ForwardPass) -> list[Maker]:
    """What the model made from which arithmetic alone leads to a square, the results of splits as such."""
    found: dict[tuple[int, int], Maker] = {}
    todo: list[tuple[Any, int]] = list(piece.next_functions)
    for _ in range(DEEP):
        if not todo:
            break
        node, number = todo.pop(0)  # the nearest first
        if node is None or type(node).__name__ == "AccumulateGrad":
            continue
        owner = forward.watched.owner(node._sequence_nr())
        if _name(node) in (*LINEAR, *MEASURES):
            todo += list(node.next_functions)
        elif not isinstance(owner, Operation) or node not in owner.nodes:
            continue
        elif _is_free(owner) or (_name(node) in SPLITS and _is_part(node, forward)):
            found[owner.order, number] = owner, node, number
    return list(found.values())


def _is_parted(gradient: Tensor) -> bool:
    """Whether some numbers are to grow and others to shrink, with one weight: pairs that labels part."""
    low = gradient.detach()[gradient < 0]
    high = gradient.detach()[gradient > 0]
    return bool(low.numel() and high.numel()) and _is_lowered(torch.cat([low, -high]))


def _compares(piece: Any) -> bool:
    """Whether a square is of the difference of two things that the model made; of a policy one is data."""
    node = piece.next_functions[0][0]
    while node is not None and _name(node) in (*MEASURES, "Sum", "Sqrt"):
        node = node.next_functions[0][0]
    edges = [] if node is None or _name(node) != "Sub" else [n for n, _ in node.next_functions]
    return len(edges) == 2 and all(n is not None for n in edges)


def _is_free(owner: Any) -> bool:
    """Whether nothing bounds what an operation makes."""
    made = isinstance(owner, Operation)
    return made and (owner.family in MOVED or owner.kind in operations.PRODUCTS)


def _is_part(node: Any, forward: ForwardPass) -> bool:
    """Whether a split divides what nothing bounds."""
    for _ in range(DEEP):
        node = node.next_functions[0][0]
        if node is None or _name(node) not in LINEAR:
            break
    return node is not None and _is_free(forward.watched.owner(node._sequence_nr()))


def _measure(makers: list[Maker], apart: Tensor, specimen: Specimen, forward: ForwardPass) -> float | None:
    """The power of the fall as what a model made goes down the gradient; None without one.

    All that reads it moves too, then, if that stops it, only what the loss reads. `apart`: which numbers of
    the square are to grow; samples of which none is stay where they are.
    """
    edges: list[Any] = [GradientEdge(node, number) for _, node, number in makers]
    gradients = torch.autograd.grad(forward.root, edges, retain_graph=True, allow_unused=True)
    gradients = tuple(None if g is None else _keep(g.detach(), apart) for g in gradients)
    ways = [None if g is None else g / g.double().pow(2).mean().sqrt() for g in gradients]
    if not all(way is not None and bool(torch.isfinite(way).all()) for way in ways):
        return None
    steps = {(maker[0].order, maker[2]): way for maker, way in zip(makers, ways, strict=True)}
    fall = _descend(steps, False, specimen, forward)
    if fall is not None or len(makers) > 1 or not _stands_alone(makers[0], forward):
        return fall
    return _descend(steps, True, specimen, forward)


def _keep(gradient: Tensor, apart: Tensor) -> Tensor:
    """The gradient of the samples of which a number is to grow."""
    if apart.ndim < 1 or gradient.ndim < 1 or len(apart) != len(gradient):
        return gradient
    some = apart.flatten(1).any(1) if apart.ndim > 1 else apart
    return gradient * some.to(gradient.dtype).reshape(-1, *(1,) * (gradient.ndim - 1))


def _descend(
    ways: Mapping[tuple[int, int], Any], late: bool, specimen: Specimen, forward: ForwardPass
) -> float | None:
    """The power of the fall along some ways; None if the loss does not fall, or no faster than that."""
    start = float(forward.loss.detach())
    fallen: list[float] = []
    for reach in REACHES:
        changes = {place: partial(_go, way=way, reach=reach) for place, way in ways.items()}
        fallen.append(start - run_moved(specimen, Nudge(changes, late)))
        if not fallen[-1] > 0:
            return None
    pairs = zip(pairwise(fallen), pairwise(REACHES), strict=True)
    powers = [math.log(b / a, q / p) for (a, b), (p, q) in pairs if math.isfinite(a)]
    power = min(powers, default=math.inf)
    return power if power > 1 else None


def _go(x: Tensor, way: Tensor, reach: float) -> Tensor:
    """What a tensor becomes that goes some of its sizes down a way."""
    own = max(1.0, float(x.double().pow(2).mean().sqrt())) if x.numel() else 1.0
    moved: Tensor = x - reach * own * way.to(x.dtype)
    return moved


def _stands_alone(maker: Maker, forward: ForwardPass) -> bool:
    """Whether the loss reads a result as it is, and layers lie between it and all else that it reads."""
    read = [(t.grad_fn, t.output_nr) for t in calls.predictions(forward.output) if t.grad_fn is not None]
    own = [(node, number) for node, number in read if (node, number) == maker[1:]]
    if forward.call.kind != "loss" or not own:
        return False
    todo, seen = [node for node, number in read if (node, number) != maker[1:]], 0
    while todo and seen < MOST:
        node: Any = todo.pop()
        seen += 1
        for below, number in node.next_functions:
            if (below, number) == maker[1:]:
                return False
            owner = None if below is None else forward.watched.owner(below._sequence_nr())
            if isinstance(owner, Operation) and owner.family not in ("layer", "recurrent", "attention"):
                todo.append(below)
    return seen < MOST


def _name_piece(node: Any, specimen: Specimen, forward: ForwardPass) -> tuple[str, str]:
    """The kind and the line of what enters the loss with a minus."""
    owner = forward.watched.owner(node._sequence_nr())
    if not isinstance(owner, Operation):
        return "pow", ""
    line = find_lines(specimen, [owner.order]).get(owner.order, ("", ""))[1]
    return "exp" if _name(node) == "Exp" else "pow", line
