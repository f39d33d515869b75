"""How wrong an output is, for any loss function: residual, share of wrong samples, logits."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from unvanish.core.facts import OutputFacts

SQUARED = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


def reading(kind: str, x: Tensor, y: Tensor) -> OutputFacts:
    """`logit_max`, `logit_top`, `residual` in [0, 1] and `wrong` of what a loss function reads."""
    x = x.double()
    found: OutputFacts = {"logit_max": float(_lift_masked(x).abs().max()) if x.numel() else math.nan}
    if not math.isfinite(found["logit_max"]):
        return {"logit_max": _largest(x)}
    known: dict[str, Callable[[str, Tensor, Tensor], OutputFacts]] = {
        "cross_entropy": _classes,
        "nll_loss": _classes,
        "binary_cross_entropy_with_logits": _two,
        "binary_cross_entropy": _two,
    }
    if kind in known:
        found.update(known[kind](kind, x, y))
    elif kind in SQUARED and y.shape == x.shape:
        y = y.double()
        wide = float(y.max() - y.min())
        width = wide if wide > 0 else max(1.0, float(y.abs().max()))
        found["residual"] = min(1.0, float((x - y).abs().mean()) / width)
        found["wrong"] = float(((x - y).abs() > 0.5 * width).double().mean())
    return found


def _lift_masked(x: Tensor) -> Tensor:
    """The scores, those that a fill value takes out raised to the least of the others.

    A fill value is below zero, the least of all, and there more than once, which computed scores are not.
    """
    least = x.min()
    masked = x == least
    if not least < 0 or not 1 < int(masked.sum()) < x.numel():
        return x
    return x.masked_fill(masked, float(x[~masked].min()))


def _largest(x: Tensor) -> float:
    finite = x[torch.isfinite(x)]
    return float(finite.abs().max()) if finite.numel() else math.nan


def _classes(kind: str, x: Tensor, y: Tensor) -> OutputFacts:
    """Cross-entropy over dimension 1 (or 0 for one sample); y holds classes or probabilities."""
    axis = 1 if x.ndim > 1 else 0
    log_p = x.log_softmax(axis) if kind == "cross_entropy" else x
    if x.ndim != 2:
        log_p = log_p.movedim(axis, -1).reshape(-1, x.shape[axis])
    low, high = torch.aminmax(_lift_masked(x), dim=axis)
    top = (high - low).flatten().median()
    if y.is_floating_point() and y.shape == x.shape:
        target = y.double().movedim(axis, -1).reshape(-1, x.shape[axis])
        label, residual = target.argmax(-1), (log_p.exp() - target).abs().sum(-1).mean() / 2
    else:
        label = y.flatten()
        first, last = torch.aminmax(label)
        if int(first) < 0 or int(last) >= x.shape[axis]:
            keep = (label >= 0) & (label < x.shape[axis])
            log_p, label = log_p[keep], label[keep]
        if not len(label):
            return {"logit_top": float(top)}
        residual = 1 - log_p.gather(1, label[:, None]).exp().mean()  # half the sum of |p - one-hot|
    return {
        "logit_top": float(top),
        "residual": float(residual),
        "wrong": int((log_p.argmax(-1) != label).count_nonzero()) / len(label),
    }


def _two(kind: str, x: Tensor, y: Tensor) -> OutputFacts:
    p = torch.sigmoid(x) if kind.endswith("logits") else x
    y = y.double().expand_as(p)
    return {
        "logit_top": float(x.abs().median()),
        "residual": float((p - y).abs().mean()),
        "wrong": float(((p - y).abs() > 0.5).double().mean()),
    }
