"""The labels that a loss is about, read off the node that made it, before its backward runs.

Notable:
- A cross-entropy or a binary one keeps its targets for the backward. If the backward begins at it, the loss
  is this and nothing else, so that the entropy of its labels is the loss of the best constant answer.
- Class weights count; sums, positive weights, smoothed and given probabilities are left out.

Limits

    WIDE = 65536     classes, or yes-no answers of a sample, at most
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unvanish.probes.live.loss_roots import find_factors

WIDE = 65536
CLASSES = ("NllLossBackward0", "NllLoss2DBackward0")
YES_NO = ("BinaryCrossEntropyWithLogitsBackward0", "BinaryCrossEntropyBackward0")
MEASURES = ("MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0")
MEAN = 1  # the number of this reduction in torch's graph


@dataclass(frozen=True)
class LabelReading:
    """The labels of one loss: `sums` over its samples, (classes,) or (answers,), float64; `rows`: how many.

    `value`: the loss. `yes_no`: each answer is a frequency of its own. `varied`: whether labels differ.
    """

    sums: Tensor
    rows: int
    value: float
    yes_no: bool
    varied: bool


def read_targets(root: Tensor) -> Tensor | None:
    """The targets of the loss that a backward is about to begin at, one row a sample; None if it has none."""
    node: Any = root.grad_fn
    for _ in find_factors(root):
        node = next(below for below, _ in node.next_functions if below is not None)
    if type(node).__name__ not in (*CLASSES, *YES_NO, *MEASURES):
        return None
    try:
        target: Tensor = node._saved_target
    except (AttributeError, RuntimeError):  # freed, or of another torch
        return None
    return target if target.ndim and len(target) else None


@torch.no_grad()
def read_labels(root: Tensor) -> LabelReading | None:
    """The labels of the loss that a backward is about to begin at; None if it is none, or on a device."""
    node: Any = root.grad_fn
    factors = find_factors(root)
    for _ in factors:
        node = next(below for below, _ in node.next_functions if below is not None)
    kind, whole = type(node).__name__, math.prod(factors)
    if kind not in (*CLASSES, *YES_NO) or root.device.type != "cpu" or not 0 < whole < math.inf:
        return None
    if node._saved_reduction != MEAN:
        return None
    value = float(root.detach()) / whole
    return _count_classes(node, value) if kind in CLASSES else _count_answers(node, value)


def _count_classes(node: Any, value: float) -> LabelReading | None:
    scores: Tensor = node._saved_self
    classes, target = scores.shape[1], node._saved_target.reshape(-1)
    if classes > WIDE:
        return None
    target = target[target != _signed(node._saved_ignore_index)]
    counts = torch.bincount(target, minlength=classes).double()
    weight = node._saved_weight
    sums = counts if weight is None else counts * weight.double()
    return LabelReading(sums, len(target), value, False, bool((counts > 0).sum() > 1))


def _count_answers(node: Any, value: float) -> LabelReading | None:
    target: Tensor = node._saved_target
    weights = node._saved_weight, getattr(node, "_saved_pos_weight", None)
    if any(w is not None for w in weights) or not target.ndim:
        return None
    rows = target.double().reshape(len(target), -1)
    if rows.shape[1] > WIDE or not len(rows):
        return None
    return LabelReading(rows.sum(0), len(rows), value, True, bool((rows[0] != rows).any()))


def _signed(index: int) -> int:
    return index - 2**64 if index >= 2**63 else index  # torch shows it without a sign


def measure_entropy(sums: Tensor, rows: int, yes_no: bool) -> tuple[float, float]:
    """The entropy of the labels in nats, of yes-no answers their mean, and how far it is off at most.

    Miller 1955: the estimate from so many rows is too small by half a nat a class and row.
    """
    if not rows or not float(sums.sum()) > 0:
        return math.nan, math.nan
    if yes_no:
        share = sums / rows
        found = -(_weigh(share) + _weigh(1 - share)).mean()
        return float(found), float(((share > 0) & (share < 1)).double().mean()) / (2 * rows)
    share = sums / sums.sum()
    return float(-_weigh(share).sum()), float((share > 0).sum() - 1) / (2 * rows)


def _weigh(share: Tensor) -> Tensor:
    return torch.where(share > 0, share * share.clamp_min(1e-300).log(), 0.0)
