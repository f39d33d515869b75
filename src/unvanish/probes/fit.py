"""How the output fits the targets: the range that its last function can give, and what the targets ask for.

Notable:
- A constant among targets that the loss leaves unreduced, or that meet the output by hand, is a mark for
  "no answer" and is masked away later; it asks for nothing.
- Only what torch's own functions say by their names, axes and bounds is read; a scaled sigmoid has no range.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unvanish.core.facts import OutputFacts
from unvanish.probes.events import Operation
from unvanish.probes.measures import see

INF = math.inf
RANGES = {
    "sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0), "erf": (-1.0, 1.0), "relu": (0.0, INF), "relu6": (0.0, 6.0),
    "softplus": (0.0, INF), "log_sigmoid": (-INF, 0.0), "logsigmoid": (-INF, 0.0), "log_softmax": (-INF, 0.0),
    "elu": (-1.0, INF), "celu": (-1.0, INF), "selu": (-1.76, INF), "gelu": (-0.17, INF), "silu": (-0.28, INF),
    "hardtanh": (-1.0, 1.0),
}  # fmt: skip
IGNORED = -100  # torch's label of what is left out
MARGIN = 0.05  # of the range, or of the targets' deviation, beyond an end that still counts as reached
SUMS = 0.05  # how far from one a row of probabilities may add up
COLUMNS = 256  # of a table, at most: more are no table
FEW = 1 << 14
EDGE = 1e-3  # from 0 and 1, where a clamp keeps scores off the logarithm's poles
CUTTING = ("clamp", "hardtanh", "relu", "relu6")
NORMALISING = ("softmax", "log_softmax", "sigmoid", "log_sigmoid", "logsigmoid")
CATEGORIES = ("cross_entropy", "nll_loss", "likelihood")


def read_fit(
    kind: str,
    x: Tensor,
    y: Tensor,
    last: Operation | None,
    unreduced: bool = False,
    ignored: int = IGNORED,
) -> OutputFacts:
    """What a loss function `kind` reads against its targets; `last`: the function that made it."""
    found: OutputFacts = {}
    axis, classes = (None, 0) if last is None else read_axis(last)
    if classes:
        found["classes"] = classes
    if kind in CATEGORIES and x.ndim:
        found |= _read_categories(kind, x, y, last, ignored)
    elif kind in ("kl_div", "ctc_loss"):
        found["raw"] = _name_raw(x, last)
        if last is not None and last.kind in NORMALISING and not found["raw"] and x.ndim:
            axes = (-1,) if kind == "ctc_loss" else (-1, min(1, x.ndim - 1))
            found["unnormalised"] = min(_count_unnormalised(x, axis) for axis in axes)
    elif y.shape == x.shape and y.numel() and bool(torch.isfinite(y).all()):
        found |= _read_numbers(kind, x, y, last, unreduced)
        if axis is not None and last is not None and x.shape == last.facts.get("shape"):
            found |= _read_rows(x.double(), y.double(), axis)
    return found


def read_axis(last: Operation) -> tuple[int | None, int]:
    """The axis of a softmax, and its length; None and 0 for other functions."""
    node: Any = last.nodes[0]
    shape = last.facts.get("shape", ())
    if last.kind not in ("softmax", "log_softmax") or "_saved_dim" not in dir(node) or not shape:
        return None, 0
    axis = node._saved_dim
    axis -= 1 << 64 if axis >= 1 << 63 else 0  # torch keeps it unsigned
    return axis % len(shape), shape[axis]


def _bounds(last: Operation) -> tuple[float, float] | None:
    node: Any = last.nodes[0]
    if last.kind == "hardtanh" and "_saved_min_val" in dir(node):
        return float(node._saved_min_val), float(node._saved_max_val)
    if last.kind == "clamp" and "_saved_min" in dir(node):
        ends = node._saved_min, node._saved_max
        if all(isinstance(end, (int, float, type(None))) for end in ends):
            return -INF if ends[0] is None else float(ends[0]), INF if ends[1] is None else float(ends[1])
    return RANGES.get(last.kind)


def _read_numbers(kind: str, x: Tensor, y: Tensor, last: Operation | None, unreduced: bool) -> OutputFacts:
    """The size of the output and of the targets, and the share of them beyond the output's range."""
    answers, read = y.double(), x.double()
    low, high = (float(v) for v in torch.aminmax(answers))
    found: OutputFacts = {
        "target_low": low,
        "target_high": high,
        "target_mean": float(answers.mean()),
        "target_std": float(answers.std(correction=0)),
        "read_rms": float(read.square().mean().sqrt()),
        "read_mean": float(read.mean()),
    }
    if y.ndim == 2 and 1 < y.shape[1] <= COLUMNS:
        spread = torch.std_mean(answers, dim=0, correction=0)
        found["target_columns"] = tuple(zip(spread[1].tolist(), spread[0].tolist(), strict=True))
    bounds = _bounds(last) if last is not None else None
    if kind.startswith("binary"):
        bounds = (0.0, 1.0)
        if low == high and low in bounds:
            found |= {"labels": 1, "answers": y.numel(), "classes": 2}
    if kind == "binary_cross_entropy" and last is not None and last.kind in CUTTING:
        found["cut_off"] = float(((read <= EDGE) | (read >= 1 - EDGE)).double().mean())
    if bounds is None:
        return found
    wide = bounds[1] - bounds[0]
    margin = MARGIN * (wide if wide < INF else found["target_std"])
    outside = (answers < bounds[0] - margin) | (answers > bounds[1] + margin)
    marked = (unreduced or kind == "difference") and _is_mark(answers, outside)
    return {**found, "bounds": bounds, "beyond": 0.0 if marked else float(outside.double().mean())}


def _is_mark(answers: Tensor, outside: Tensor) -> bool:
    """Whether the targets outside are one constant, and the others are answers of several kinds."""
    return _count_kinds(answers[outside]) == 1 and _count_kinds(answers[~outside]) > 1


def _read_rows(x: Tensor, y: Tensor, axis: int) -> OutputFacts:
    """How many rows of targets add up to more than one, and whether they add up to it along another axis."""
    found: OutputFacts = {"unlike_rows": float((y.sum(axis) > 1 + SUMS).double().mean())}
    other = [a for a in range(1, y.ndim) if a != axis and bool(((y.sum(a) - 1).abs() < SUMS).all())]
    if other and y.shape[other[0]] > 1:
        found["unnormalised"] = float(((x.sum(other[0]) - 1).abs() > SUMS).double().mean())
    return found


def _read_categories(kind: str, x: Tensor, y: Tensor, last: Operation | None, ignored: int) -> OutputFacts:
    """Whether log-probabilities are what they are called, and how many kinds of labels there are."""
    axis = 1 if x.ndim > 1 else 0
    found: OutputFacts = {}
    if kind == "cross_entropy" or not found.get("classes"):
        found["classes"] = x.shape[axis]
    if kind == "nll_loss":
        found["raw"] = _name_raw(x, last)
    if kind != "cross_entropy" and last is not None and last.kind in NORMALISING and not found.get("raw"):
        found["unnormalised"] = _count_unnormalised(x, axis)
    if not y.is_floating_point():
        count = _count_kinds if y.ndim <= 1 else _count_few
        found["labels"], found["answers"] = count(y[y != ignored]), y.numel()
        found["maps"] = len(y) if y.ndim > 1 else 0
    elif y.is_floating_point() and y.shape == x.shape and y.numel():
        found |= _read_shares(y.double(), axis)
    return found


def _count_unnormalised(log: Tensor, axis: int) -> float:
    """The share of rows of logarithms of probabilities that do not add up to one."""
    return float((log.double().logsumexp(axis).abs() > SUMS).double().mean())


def _read_shares(y: Tensor, axis: int) -> OutputFacts:
    """What targets that are probabilities of classes ask for."""
    low, high = (float(v) for v in torch.aminmax(y))
    found: OutputFacts = {
        "target_low": low,
        "target_high": high,
        "beyond": float(((y < -MARGIN) | (y > 1 + MARGIN)).double().mean()),
        "unlike_rows": float((y.sum(axis) > 1 + SUMS).double().mean()),
    }
    whole = bool(((y == 0) | (y == 1)).all()) and bool((y.sum(axis) == 1).all())
    if whole and y.ndim == 2:
        found["labels"], found["answers"] = _count_kinds(y.argmax(axis)), len(y)
    return found


def is_compared(last: Operation | None) -> bool:
    """Whether the scores compare samples with each other, so that a label is a place and no class.

    Scores of classes come from a layer, which can learn a constant answer.
    """
    own = ("layer", "norm", "activation")
    return last is not None and last.family not in own and last.kind not in ("softmax", "log_softmax")


def _name_raw(x: Tensor, last: Operation | None) -> str:
    """Name what is read if logarithms of probabilities were asked for and these cannot be ones; else ""."""
    if last is None or not bool((x > 0).any()):
        return ""
    if last.kind in ("softmax", "sigmoid"):
        return "probabilities"
    return "scores" if last.family in ("layer", "norm", "activation") else ""


def _count_few(values: Tensor) -> int:
    """How many kinds of values there are, up to two."""
    if not values.numel():
        return 0
    low, high = torch.aminmax(values)
    return 1 if bool(low == high) else 2


def _count_kinds(values: Tensor) -> int:
    few = values.is_cpu and values.numel() <= FEW  # Python, or NumPy, is done before torch begins
    if few and not values.is_floating_point():
        return len(set(values.flatten().tolist()))
    return len(np.unique(see(values))) if few else int(torch.unique(values).numel())
