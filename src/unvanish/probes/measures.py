"""Numbers read off tensors: sizes, likeness of samples and tokens, weights, in float64.

Notable: likeness is judged on at most 64 samples and 4096 evenly spaced features; sizes on every element.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SAMPLES, FEATURES = 64, 4096
CHUNK = 1 << 22


def log_norm(x: Tensor) -> float:
    """Ln of the L2 norm, accumulated in float64; -inf for an exact zero, NaN or inf where x is not finite."""
    norm = (
        float(torch.linalg.vector_norm(x.detach(), dtype=torch.float64))
        if x.is_floating_point()
        else math.nan
    )
    return math.log(norm) if norm > 0 and math.isfinite(norm) else -math.inf if norm == 0 else norm


def finite(x: Tensor) -> bool:
    """Whether every element is finite."""
    return bool(torch.isfinite(x.detach().sum())) or bool(torch.isfinite(x.detach()).all())


def samples(x: Tensor, batch: int | None) -> Tensor | None:
    """(B, features) of an activation, the batch dimension found by its size; None where there is none."""
    x = x.detach()
    if not batch or batch < 2 or x.ndim == 0 or x.numel() < batch * 2:
        return None
    if x.shape[0] != batch:
        if x.ndim > 1 and x.shape[1] == batch:
            x = x.transpose(0, 1)
        elif x.shape[0] % batch == 0:
            return x.reshape(batch, -1)
        else:
            return None
    return x.reshape(batch, -1)


def thinned(rows: Tensor) -> Tensor:
    """At most SAMPLES rows and FEATURES evenly spaced columns, float64."""
    step = -(-rows.shape[1] // FEATURES)
    offset = min(step // 2, rows.shape[1] - 1)
    return rows[:SAMPLES, offset::step].to(torch.float64)


def activation_stats(x: Tensor, batch: int | None, tokens: bool = False) -> dict[str, float]:
    """Size, likeness of samples, and share of non-finite elements of one activation."""
    x = x.detach()
    if x.numel() == 0 or not x.is_floating_point():
        return {}
    norm = float(torch.linalg.vector_norm(x, dtype=torch.float64))
    found = {"forward_rms": norm / math.sqrt(x.numel())}
    if not math.isfinite(norm):
        found["forward_nonfinite"] = float((~torch.isfinite(x)).double().mean())
        return found
    found["forward_nonfinite"] = 0.0
    low, high = torch.aminmax(x)
    found["forward_max"] = max(abs(float(low)), abs(float(high)))
    rows = samples(x, batch)
    if rows is not None and norm > 0:
        found.update(likeness(thinned(rows)))
    if tokens and x.ndim == 3 and x.shape[1] > 1 and x.shape[2] >= 4 and norm > 0:
        found["token_cosine"] = token_cosine(x)
    return found


def likeness(rows: Tensor) -> dict[str, float]:
    """`spread` ||h - mean|| / ||h|| and the mean `cosine` between rows (B, features)."""
    total = rows.square().sum()
    if not bool(total > 0):
        return {}
    spread = (rows - rows.mean(0)).square().sum() / total
    return {"spread": math.sqrt(float(spread)), "cosine": _mean_cosine(rows[None])}


def token_cosine(x: Tensor) -> float:
    """Mean cosine between the tokens of a sample, x (B, T, D); at most 8 samples and 64 tokens."""
    step = -(-x.shape[1] // 64)
    return _mean_cosine(x.detach()[:8, ::step].to(torch.float64))


def _mean_cosine(x: Tensor) -> float:
    """Mean over pairs of rows and over the leading dimension, x (N, R, F)."""
    norms = x.norm(dim=-1, keepdim=True)
    alive = (norms > 0).squeeze(-1)
    count = alive.sum(-1).double()
    unit = torch.where(norms > 0, x / norms, 0.0)
    pairs = count * (count - 1)
    summed = unit.sum(-2).square().sum(-1) - count
    keep = pairs > 0
    return float((summed[keep] / pairs[keep]).mean()) if bool(keep.any()) else math.nan


def weight_stats(weight: Tensor, outputs: int) -> dict[str, float]:
    """`weight_log` = ln sqrt(||W||_F^2 / n_out) and `weight_rms` of a layer's weight."""
    norm = float(torch.linalg.vector_norm(weight.detach(), dtype=torch.float64))
    if not (norm > 0 and math.isfinite(norm)):
        return {"weight_rms": norm / math.sqrt(max(1, weight.numel()))}
    return {
        "weight_log": math.log(norm) - 0.5 * math.log(outputs),
        "weight_rms": norm / math.sqrt(weight.numel()),
    }


def slope_stats(slope: Tensor, peak: float | None) -> dict[str, float]:
    """`slope_sq`, `dead`, and for squashing functions of largest slope `peak` `saturated`, from phi'(z)."""
    if slope.numel() == 0:
        return {}
    mean = float(torch.linalg.vector_norm(slope, dtype=torch.float64)) ** 2 / slope.numel()
    found = {"slope_sq": mean}
    if peak is not None:
        flat = slope.abs() < 0.05 * peak
        found["saturated"] = float(flat.double().mean())
        found["pinned"] = float(_never(flat).double().mean())
    zero = slope == 0
    found["dead"] = float(_never(zero).double().mean()) if bool(zero.any()) else 0.0
    return found


def _never(zero: Tensor) -> Tensor:
    """Which units are zero for every sample and position: channels of images, else the last dimension."""
    if zero.ndim >= 4:
        return zero.transpose(0, 1).flatten(1).all(1)
    return zero.reshape(-1, zero.shape[-1]).all(0) if zero.ndim > 1 else zero
