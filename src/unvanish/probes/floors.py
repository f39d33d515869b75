"""Functions of one sign between the last layer and a loss that reads logits, wherever they stand.

Notable:
- What cuts off is known by what it does: several of the numbers that the loss reads are exactly the least of
  them. So a ReLU, a clamp, a maximum with zero, a product with a mask of the positive ones are one thing.
- A fill value far below zero takes classes out on purpose, and is no floor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unvanish.core.facts import OutputFacts
from unvanish.probes import operations
from unvanish.probes.events import Operation
from unvanish.probes.forward import Forward
from unvanish.probes.saved import find_saved

CUTTING = (
    "relu",
    "relu6",
    "clamp",
    "clamp_min",
    "clip",
    "maximum",
    "where",
    "mul",
    "threshold",
    "hardtanh",
    "max",
)
NAMED = ("relu", "relu6")  # that say it themselves
SMOOTH = {  # the least that they give
    **{"softplus": 0.0, "exp": 0.0, "abs": 0.0, "square": 0.0, "pow": 0.0},
    **{"gelu": -0.17, "silu": -0.28, "mish": -0.31, "elu": -1.0, "celu": -1.0, "selu": -1.76},
}
FILL = -3.0  # what is cut off below takes classes out
SHARE = 0.02  # of the logits at the least value, at the least: computed ones differ
LEAST = 3  # logits there, at the least: of a few, one is the least by itself
REACH = 8  # views and normalisations between the function and the loss


@torch.no_grad()
def read_floor(node: Any, watched: Forward, x: Tensor, logarithms: bool) -> OutputFacts:
    """What keeps the logits whose graph ends in `node` above a value; nothing if nothing does.

    `logarithms`: x holds logarithms of probabilities that were made of the logits.
    """
    made = _find_maker(node, watched)
    if made is None or not x.numel():
        return {}
    if made.kind in SMOOTH:
        own = not logarithms and float(x.min()) < SMOOTH[made.kind] - 0.01  # an odd power
        return {} if own else {"floor": made.kind, "floor_share": 0.0}
    saved = find_saved(made.nodes[0], "_saved_result")
    if saved is not None and saved.numel() == x.numel():  # what it gave, whatever normalised that
        x, logarithms = saved.detach(), False
    if made.kind in NAMED:
        return {
            "floor": made.kind,
            "floor_share": float((x == x.min()).double().mean()) if not logarithms else 0.0,
        }
    axis = min(1, x.ndim - 1)
    least = x.min(axis, keepdim=True)[0] if logarithms else x.min()
    at = x == least
    many = at & (at.sum(axis, keepdim=True) > 1) if logarithms else at
    share = float(many.double().mean())
    if int(many.sum()) < LEAST or share < SHARE or (not logarithms and not float(least) > FILL):
        return {}
    return {"floor": made.kind, "floor_share": share}


def _find_maker(node: Any, watched: Forward) -> Operation | None:
    """The function of one sign that made logits, but for views and what normalises them."""
    for _ in range(REACH):
        if node is None or type(node).__name__ == "AccumulateGrad":
            return None
        owner = watched.owner(node._sequence_nr())
        if isinstance(owner, Operation):
            if owner.kind in CUTTING or owner.kind in SMOOTH:
                return owner
            if owner.kind not in (*operations.VIEWS, "log_softmax", "getitem", "index"):
                return None
        edges = [b for b, _ in node.next_functions if b is not None]
        node = edges[0] if len(edges) == 1 else None
    return None
