"""Whether the weights of a sum add up to one: the axis of a softmax against the axis that is summed over.

Notable:
- A softmax by hand is an exponential that is divided by its own sum.
- Only a softmax counts whose scores are a product of two things that the model computed, and whose result
  goes into another product, through views alone: what is normalised again after it is another matter.
- Scores that are added up over rounds, against the values themselves, are those of a routing by agreement.
"""

from __future__ import annotations

from typing import Any

from unvanish.core.loss_facts import SoftmaxFacts
from unvanish.probes.attention import find_product
from unvanish.probes.events import Operation
from unvanish.probes.fit import read_axis
from unvanish.probes.forward import Forward
from unvanish.probes.handles import End
from unvanish.probes.layout import follow_axis

SOON = 16  # operations between a softmax and the product that reads it
VIEWS = ("View", "UnsafeView", "Unsqueeze", "Squeeze", "Transpose", "Permute", "T", "Expand", "Clone")


def find_misplaced(watched: Forward) -> list[tuple[SoftmaxFacts, int]]:
    """Softmaxes along another axis than the next product sums over, with their orders."""
    products = [o for o in watched.operations if "factors" in o.handles]
    found: list[tuple[SoftmaxFacts, int]] = []
    for o in watched.operations if len(products) > 1 else ():
        if o.kind not in ("softmax", "div") or o.order >= watched.loss_order:
            continue
        if facts := _judge(o, products, watched):
            found.append((facts, o.order))
    return found


def _read_own_sum(division: Operation) -> tuple[int | None, int]:
    """The axis of a softmax by hand, and its length; None and 0 for other divisions."""
    below: list[Any] = [node for node, _ in division.nodes[0].next_functions]
    shape = division.facts.get("shape", ())
    if len(below) != 2 or type(below[0]).__name__ != "ExpBackward0":
        return None, 0
    total: Any = below[1]
    while total is not None and type(total).__name__.removesuffix("Backward0") in (*VIEWS, "Add", "Clamp"):
        total = total.next_functions[0][0]
    if total is None:
        return None, 0
    axes: tuple[int, ...] = getattr(total, "_saved_dim", ())
    summed: Any = total.next_functions[0][0] if type(total).__name__ == "SumBackward1" else None
    own = type(summed).__name__ == "ExpBackward0" and summed.next_functions == below[0].next_functions
    if not own or len(axes) != 1 or not shape:
        return None, 0
    axis = axes[0] - (1 << 64 if axes[0] >= 1 << 63 else 0)  # torch keeps it unsigned
    return axis % len(shape), shape[axis]


def _judge(softmax: Operation, products: list[Operation], watched: Forward) -> SoftmaxFacts | None:
    """What is wrong with one softmax; None if nothing is, or if that is not known."""
    axis, length = read_axis(softmax) if softmax.kind == "softmax" else _read_own_sum(softmax)
    scores = find_product(softmax.nodes[0].next_functions[0][0], watched)
    if axis is None or length < 2 or scores is None or not _are_computed(scores.handles["factors"]):
        return None
    for product in products:
        if not softmax.order < product.order <= softmax.order + SOON:
            continue
        for number, (node, _) in enumerate(product.handles["factors"]):
            lies = None if node is None else follow_axis(node, softmax, axis)
            summed = _find_summed(product, number, softmax)
            if not lies or summed is None:
                continue
            if {*lies} & {*summed} or _is_routing(softmax, scores, product, number):
                return None
            return {
                "path": softmax.caller.path,
                "axis": axis,
                "axes": len(softmax.facts["shape"]),
                "line": "",
            }
    return None


def _find_summed(product: Operation, number: int, softmax: Operation) -> list[int] | None:
    """The axes of one factor that a product sums over, counted from 0; None if that is not known."""
    node: Any = product.handles["factors"][number][0]
    axes = len(node._input_metadata[0].shape)
    if product.kind == "einsum":
        left, arrow, right = product.handles.get("equation", "").partition("->")
        terms = left.split(",")
        if not arrow or "." in left or len(terms) != len(product.handles["factors"]):
            return None
        return [i for i, letter in enumerate(terms[number]) if letter not in right]
    if len(product.handles["factors"]) != 2:
        return None
    return [axes - 1 if number == 0 else axes - 2]


def _are_computed(factors: tuple[End, ...]) -> bool:
    """Whether both sides of a product are made by the model, neither of them a weight or data."""
    return len(factors) == 2 and all(_is_computed(node) for node, _ in factors)


def _is_computed(node: Any) -> bool:
    while node is not None and type(node).__name__.removesuffix("Backward0") in VIEWS:
        node = node.next_functions[0][0]
    return node is not None and type(node).__name__ != "AccumulateGrad"


def _is_routing(softmax: Operation, scores: Operation, product: Operation, number: int) -> bool:
    """Whether scores are added up and weigh what they were made of, as in routing by agreement."""
    values = {node for i, (node, _) in enumerate(product.handles["factors"]) if i != number}
    node: Any = softmax.nodes[0].next_functions[0][0]
    added = type(node).__name__ == "AddBackward0"
    return added and bool(values & {n for n, _ in scores.handles["factors"]})
