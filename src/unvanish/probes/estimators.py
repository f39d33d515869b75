"""Straight-through estimators by hand of the wrong sign: b - p + p.detach() has the value b, the slope -1.

Notable: such a sum holds p once with and once without a gradient, and what is left is like p (a rounded or
thresholded p). A sum that equals p, as a reversal of gradients by hand, is meant, and one that falls as p
grows has the slope that it should have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unvanish.probes.events import OperationCall
from unvanish.probes.handles import Node

FEWEST = 8  # numbers
LIKE = 0.5  # correlation of what is left with p


def find_turned(call: OperationCall, find_source: Callable[[Tensor], set[Node]]) -> Node | None:
    """The node of what enters a sum with a minus and, without a gradient, with a plus; None if nothing does.

    `find_source`: the nodes of what a tensor was detached from.
    """
    terms = [t for t in call.args[:2] if isinstance(t, Tensor)]
    result = call.result
    if len(terms) != 2 or call.kind not in ("add", "sub") or not isinstance(result, Tensor):
        return None
    fixed = next((t for t in terms if not t.requires_grad), None)
    moving = next((t for t in terms if t.requires_grad), None)
    plain = result.is_floating_point() and result.layout is torch.strided and not result.is_meta
    if fixed is None or moving is None or moving.grad_fn is None or not plain or result.numel() < FEWEST:
        return None
    sources = find_source(fixed)
    if call.kind == "sub":  # p.detach() + b - p
        taken, p = (moving.grad_fn, moving) if terms[1] is moving else (None, None)
    else:  # b - p + p.detach()
        taken, p = _find_subtracted(moving.grad_fn), fixed
    if p is None or taken is None or taken not in sources or p.shape != result.shape:
        return None
    return taken if _is_like(result.detach(), p.detach()) else None


def _find_subtracted(node: Any) -> Any:
    """What a difference takes off; None for other nodes."""
    if type(node).__name__ != "SubBackward0" or len(node.next_functions) < 2:
        return None
    return node.next_functions[1][0]


@torch.no_grad()
def _is_like(result: Tensor, p: Tensor) -> bool:
    """Whether a result goes with p, and is another value."""
    r, q = result.double().flatten(), p.double().flatten()
    r, q = r - r.mean(), q - q.mean()
    size = float(r.norm() * q.norm())
    other = float((result - p).abs().max()) > 1e-6 * float(p.abs().max())
    return other and size > 0 and float(r @ q) > LIKE * size
