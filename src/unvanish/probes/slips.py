"""Slips in the calls of a loss: signs it expects and does not get, a power that leaves nothing, a divisor of
almost zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from unvanish.core.loss_facts import WishFacts
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.graph import Graph
from unvanish.probes.loss_calls import LossCalls

SIGNED = ("soft_margin_loss", "hinge_embedding_loss", "cosine_embedding_loss", "margin_ranking_loss")
MARGINS = ("sub", "rsub", "neg")
CUTS = ("relu", "clamp", "clamp_min")  # that make a hinge
DECAYS = ("exp", "softplus", "log_sigmoid")  # that make the logistic and the exponential loss
DISTANCES = ("pairwise_distance", "triplet_margin_loss", "cosine_embedding_loss", "cdist")
COLLAPSED = 1e-4  # of their size, by which samples differ: a thousandth at the least in fresh nets
POWER = 10.0  # exponents below are in use
LEFT = 0.05  # of the largest sample, after the power
FLOOR = 1e-5  # a divisor below, that makes numbers above 1 / FLOOR ** 0.5, of what is no smaller itself
FEW = 4  # numbers
LAYERS = ("AddmmBackward0", "ConvolutionBackward0", "MmBackward0")
SHAPED = ("view", "reshape", "flatten", "squeeze", "getitem", "permute", "transpose", "contiguous")


def find_slips(calls: LossCalls, graph: Graph) -> list[WishFacts]:
    """Those that the loss reaches; `share`: what a power leaves, or how many divisors are next to zero."""
    made = [(c, o) for c, o in calls.made if o.nodes[0] in graph.index]
    products = {
        id(c.result) for c, _ in made if c.kind == "mul" and any(map(_is_unsigned, _answers(c, calls)))
    }
    negative = {
        id(c.result) for c, _ in made if c.kind == "mul" and any(map(_is_negated, _answers(c, calls)))
    }
    margins = negative | {id(c.result) for c, _ in made if c.kind in MARGINS and _takes(c, products)}
    summed = any(c.kind == "add" and any(True for _ in _answers(c, calls)) for c, _ in made)
    found = _find_scored(made, calls)
    for call, operation in made:
        source = calls.lines.get(operation.order, "")
        given = list(tensors_in(call.args, 1))
        hinge = call.kind in CUTS and any(id(t) in margins for t in given)
        hinge |= call.kind in DECAYS and any(id(t) in margins for t in given)
        if hinge or (call.kind in SIGNED and any(_is_unsigned(t) for t in _answers(call, calls))):
            found.append({"how": "unsigned", "share": 1.0, "classes": (), "source": source})
        elif call.kind == "mul" and summed and _is_scaled_overlap(given, _answers(call, calls)):
            found.append(
                {"how": "scaled", "share": _largest(_answers(call, calls)), "classes": (), "source": source}
            )
        elif call.kind in DISTANCES and any(map(_is_collapsed, given)):
            found.append({"how": "collapsed", "share": COLLAPSED, "classes": (), "source": source})
        elif call.kind == "pow" and (left := _read_power(call)) is not None:
            found.append({"how": "power", "share": left, "classes": (), "source": source})
        elif call.kind == "div" and (share := _read_floor(call)) > 0:
            found.append({"how": "floor", "share": share, "classes": (), "source": source})
    return found


def _find_scored(made: list[tuple[OperationCall, Operation]], calls: LossCalls) -> list[WishFacts]:
    """An overlap with yes and no of scores that are no probabilities: it divides by a sum of them."""
    scores: set[int] = set()
    sums: set[int] = set()
    meets = False
    for call, operation in made:
        given = [t for t in tensors_in(call.args, 1)]
        mine = [t for t in given if id(t) in scores or _is_score(t)]
        meets |= call.kind == "mul" and bool(mine) and any(map(_is_unsigned, _answers(call, calls)))
        if mine and call.kind in SHAPED:
            scores.add(id(call.result))
        elif (mine and call.kind in ("sum", "mean")) or (
            call.kind in ("add", "mul") and any(id(t) in sums for t in given)
        ):
            sums.add(id(call.result))
        elif call.kind == "div" and meets and len(given) > 1 and id(given[1]) in sums:
            source = calls.lines.get(operation.order, "")
            return [{"how": "scores", "share": 1.0, "classes": (), "source": source}]
    return []


def _is_score(t: Tensor) -> bool:
    """Whether a layer made a tensor, with numbers of both signs."""
    made = t.requires_grad and type(t.grad_fn).__name__ in LAYERS and t.is_floating_point()
    return made and bool((t.detach() < 0).any())


def _answers(call: OperationCall, calls: LossCalls) -> Iterable[Tensor]:
    return (t for t in tensors_in(call.given, 1) if calls.is_target(t))


def _is_unsigned(y: Tensor) -> bool:
    """Whether targets are zeros and ones."""
    return _kinds(y) == [0.0, 1.0]


def _is_negated(y: Tensor) -> bool:
    """Whether targets are zeros and ones with a minus."""
    return _kinds(y) == [-1.0, 0.0]


def _is_scaled_overlap(given: Iterable[Tensor], answers: Iterable[Tensor]) -> bool:
    """Whether a product is of probabilities and of targets that are none."""
    return any(map(_is_sure, given)) and any(map(_is_scaled, answers))


def _is_scaled(y: Tensor) -> bool:
    """Whether targets are zeros and another number than one."""
    kinds = _kinds(y)
    return len(kinds) == 2 and kinds[0] == 0 and kinds[1] > 1


def _kinds(y: Tensor) -> list[float]:
    """The values of a tensor, if they are two at most."""
    if y.numel() < 2:
        return []
    low, high = torch.aminmax(y)
    return [float(low), float(high)] if bool(((y == low) | (y == high)).all()) and low != high else []


def _is_collapsed(t: Tensor) -> bool:
    """Whether the rows of a table that the model made are all alike."""
    if t.ndim != 2 or not t.requires_grad or t.shape[0] < FEW or t.shape[1] < 2:
        return False
    rows = t.detach().double()
    size = float(rows.square().mean().sqrt())
    return 0 < size < float("inf") and float((rows - rows[:1]).abs().max()) < COLLAPSED * size


def _is_sure(t: Tensor) -> bool:
    """Whether a sigmoid or a softmax made a tensor, but for its shape."""
    node: Any = t.grad_fn
    if type(node).__name__ in ("ViewBackward0", "SqueezeBackward1", "ReshapeAliasBackward0"):
        node = node.next_functions[0][0]
    return type(node).__name__ in ("SigmoidBackward0", "SoftmaxBackward0")


def _largest(targets: Iterable[Tensor]) -> float:
    return max(float(t.max()) for t in targets)


def _takes(call: OperationCall, products: set[int]) -> bool:
    """Whether a product is taken from a number, as from a margin, or negated."""
    numbers = call.kind == "neg" or any(isinstance(a, (int, float)) for a in call.args)
    return numbers and any(id(t) in products for t in tensors_in(call.args, 1))


def _read_power(call: OperationCall) -> float | None:
    """What a high power leaves of the largest of some numbers between 0 and 1; None if it is enough."""
    base, exponent = (*call.args, None)[:2]
    if not isinstance(base, Tensor) or not isinstance(exponent, (int, float)) or exponent < POWER:
        return None
    low, high = (float(v) for v in torch.aminmax(base.detach()))
    left = high**exponent if low >= 0 and high <= 1 else 1.0
    return left if left < LEFT else None


@torch.no_grad()
def _read_floor(call: OperationCall) -> float:
    """The share of divisors, made by the model, that are near zero where what they divide is not."""
    over, under = (*call.args, None)[:2]
    if not isinstance(over, Tensor) or not isinstance(under, Tensor) or not under.requires_grad:
        return 0.0
    if under.numel() < FEW or not under.is_floating_point() or not isinstance(call.result, Tensor):
        return 0.0
    blown = (under.abs() < FLOOR) & (call.result.abs() > FLOOR**-0.5) & (over.abs() > FLOOR)
    return float(blown.double().mean())
