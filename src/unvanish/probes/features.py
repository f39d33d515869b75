"""The features that the first layer reads: columns of a table, channels of an image; how uneven they are.

Notable:
- A feature's size is the median of its absolute values where it is not zero, so that rare features (pixels at
  a border, words, one-hot places) count by what they are if they are there.
- Features whose weights make up for their size, as those of a trained layer do, are even.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unvanish.core.facts import NodeFacts
from unvanish.probes import operations
from unvanish.probes.events import OperationCall
from unvanish.probes.measures import see
from unvanish.probes.signatures import SIGNATURES

MOST = 1024  # features at most: more are no table
ROWS = 1 << 16  # numbers that are looked at
SIGN = 30.0  # times between the mean sizes of two features, from which their medians are taken
SPIKE = 300.0  # times a feature's mean size, from which its largest value may be an outlier
FEW = 3  # values that far from a feature's mean, of which one may be an outlier: then its middle is looked at
TIED = 0.1  # of a feature's values equal to its median: it is rare rather than squeezed
FEWEST = 32  # rows for that
LOOKED_UP = ("EmbeddingBackward0", "EmbeddingBagBackward0")  # rows of weights are no features of the data
SCALING = ("Mul", "Div", "Add", "Sub", "Rsub")  # nodes
VIEWED = 3  # nodes through which they are looked for
QUARTILES = 1.349  # of a Gaussian: the distance of its quartiles, in deviations
SPAN = 20.0  # times between the ends of what is above zero, 5 % of it beyond each: then it spans decades
SKEWED = 6.0  # times by which the upper end is farther from the median than the lower one; exponential ones 4


def find_axis(kind: str, ndim: int) -> int | None:
    """The axis of the features of what a layer reads; None if it is unknown."""
    if kind in ("linear", "matmul", "mm", *operations.RECURRENT, *operations.BY_SAMPLE):
        return ndim - 1 if ndim > 1 else None
    return 1 if kind.startswith("conv") and ndim > 2 else None


def as_rows(x: Tensor, axis: int, most: int = ROWS) -> Tensor | None:
    """The observations of each feature, (rows, features), in float32 at least; None if there is no table."""
    features = x.shape[axis]
    if not 1 < features <= MOST or x.ndim < 2 or not x.numel():
        return None
    rows = x.detach().movedim(axis, -1).reshape(-1, features)
    rows = rows[:: max(1, len(rows) * features // most)]
    return rows.to(torch.promote_types(rows.dtype, torch.float32)) if len(rows) > 1 else None


def read_features(call: OperationCall) -> NodeFacts:
    """What the first layer reads: how uneven its features are, and their size."""
    x = call.arguments.get("input") if call.kind in SIGNATURES else None
    axis = find_axis(call.kind, x.ndim) if isinstance(x, Tensor) and x.is_floating_point() else None
    if axis is None or not isinstance(x, Tensor) or type(x.grad_fn).__name__ in LOOKED_UP:
        return {}
    weight = call.arguments.get("weight")
    facts = read_unevenness(x, axis, weight if isinstance(weight, Tensor) else None)
    if not x.requires_grad:
        return {**facts, **read_scale(x)}
    return {**facts, **_read_scaled(x)} if _is_scaled(x) else facts


def _is_scaled(x: Tensor) -> bool:
    """Whether a product, a quotient, a sum or a difference made it, seen through views."""
    node: Any = x.grad_fn
    for _ in range(VIEWED):
        if node is None or len(node.next_functions) != 1 or node.name().startswith(SCALING):
            break
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith(SCALING)


@torch.no_grad()
def _read_scaled(x: Tensor) -> NodeFacts:
    """The size and the largest value of what the model itself scaled."""
    rows = x.detach()[: max(1, ROWS * len(x) // max(1, x.numel()))].double()
    size, top = float(rows.square().mean().sqrt()), float(rows.abs().max())
    return {"scaled_rms": size, "scaled_max": top} if math.isfinite(size) else {}


@torch.no_grad()
def read_scale(x: Tensor) -> NodeFacts:
    """The size of what the first layer reads, of numbers that were no floats when they entered the model."""
    rows = x.detach()[: max(1, ROWS * len(x) // max(1, x.numel()))].double()
    size = float(rows.square().mean().sqrt())
    return {"fed_rms": size, "fed_whole": bool((rows == rows.round()).all())} if math.isfinite(size) else {}


@torch.no_grad()
def read_unevenness(x: Tensor, axis: int, weight: Tensor | None) -> NodeFacts:
    """How many times the largest feature exceeds the least, and a feature's largest value its usual one."""
    rows = as_rows(x, axis)
    lonely = None if rows is None else _find_sign(rows)
    if rows is None or lonely is None:
        return {}
    rows = rows.double()
    sizes = rows.abs()
    facts = _measure(sizes, sizes.amax(0), (sizes > 0).any(0), weight, axis)
    return {**facts, **_find_squeezed(rows[:, lonely], facts)} if facts and lonely else facts


def _find_sign(rows: Tensor) -> list[int] | None:
    """The features of which a few values are far off; None without them and if no sizes are far apart."""
    read = see(rows.cpu())  # NumPy is done before torch begins
    with np.errstate(all="ignore"):
        sizes = np.abs(read)
        present, total, top = np.count_nonzero(sizes > 0, axis=0), sizes.sum(0), sizes.max(0)
        some = (total / np.maximum(present, 1))[present > 0]
        low, high = (float(some.min()), float(some.max())) if some.size else (1.0, 1.0)
        if not math.isfinite(high):  # their sum may still be a number
            return None if rows.dtype is torch.float64 else _find_sign(rows.double())
        least = np.finfo(read.dtype).tiny
        spike = float((top * len(read) / np.maximum(total, least)).max()) if len(read) > 2 else 0.0
        uneven, lonely = high >= SIGN * low or spike >= min(SPIKE, len(read) / 2), _find_lonely(read)
    return lonely if uneven or lonely else None


def _find_lonely(rows: NDArray[Any]) -> list[int]:
    """The features of which one value, or a few, lie far from the mean and nearly all others do not."""
    if len(rows) < FEWEST:
        return []
    distances = np.abs(rows - rows.mean(0))
    far = min(SPIKE, len(rows) / FEW) * distances.mean(0)
    return np.flatnonzero(distances.max(0) > far).tolist()


def _find_squeezed(rows: Tensor, known: NodeFacts) -> NodeFacts:
    """The largest distance of a value from the median, in widths of the middle half, of a feature."""
    parts = torch.tensor([0.25, 0.5, 0.75], dtype=rows.dtype, device=rows.device)
    low, middle, high = torch.quantile(rows, parts, 0)
    width = (high - low) / QUARTILES
    far = (rows - middle).abs().amax(0) / width
    tied = (rows == middle).double().mean(0) > TIED
    far[(width <= 0) | tied] = 0.0
    worst = int(far.argmax())
    if float(far[worst]) <= known["outlier"]:
        return {}
    usual, top = float(width[worst]), float(rows[:, worst].abs().max())
    return {"outlier": float(far[worst]), "outlier_top": top, "outlier_usual": usual}


def _measure(sizes: Tensor, top: Tensor, kept: Tensor, weight: Tensor | None, axis: int) -> NodeFacts:
    usual = torch.nanmedian(torch.where(sizes > 0, sizes, math.nan), 0).values
    varies = kept & (sizes.amax(0) > sizes.amin(0))
    if int(varies.sum()) < 1:
        return {}
    passed = usual * _weigh(weight, len(usual)).to(usual)
    sizes_of = passed[varies]
    share = top[varies] / usual[varies]
    place = int(share.argmax())
    return {
        "feature_axis": axis,
        "feature_ratio": float(sizes_of.max() / sizes_of.min().clamp_min(1e-300)),
        "feature_large": float(usual[varies].max()),
        "feature_small": float(usual[varies].min()),
        "outlier": float(share.max()),
        "outlier_top": float(top[varies][place]),
        "outlier_usual": float(usual[varies][place]),
    }


def _weigh(weight: Tensor | None, features: int) -> Tensor:
    """The norm of each feature's weights, over their mean; ones if they are not the layer's."""
    if weight is None or weight.ndim < 2 or weight.shape[1] != features:
        return torch.ones(features)
    norms = weight.detach().double().transpose(0, 1).reshape(features, -1).norm(dim=1).cpu()
    return norms / norms.mean() if float(norms.mean()) > 0 else torch.ones(features)


@torch.no_grad()
def describe_features(x: Tensor, axis: int) -> tuple[tuple[float, float], ...]:
    """Centre and scale of each feature: median and quartiles, or mean and deviation if few values vary.

    A constant has scale 1; empty if there is no table.
    """
    rows = as_rows(x, axis)
    if rows is None or not bool(torch.isfinite(rows).all()):
        return ()
    rows = rows.double()
    low, middle, high = torch.quantile(
        rows, torch.tensor([0.25, 0.5, 0.75], dtype=rows.dtype, device=rows.device), 0
    )
    std, mean = torch.std_mean(rows, dim=0, correction=0)
    robust = (high - low) / QUARTILES
    rough = robust <= 0.1 * std  # most values are one: rare ones are no outliers
    outliers = (rows - middle).abs().amax(0) > SPIKE * robust
    taken = (robust > 0) & (outliers | ~rough)
    centre, scale = torch.where(taken, middle, mean), torch.where(taken, robust, std)
    scale = torch.where(scale > 1e-6 * centre.abs().clamp_min(1e-30), scale, torch.ones_like(scale))
    return tuple(zip(centre.tolist(), scale.tolist(), strict=True))


@torch.no_grad()
def find_units(x: Tensor, axis: int) -> tuple[float, ...]:
    """The unit in which log1p(x / unit) evens out a feature that spans decades and is never negative.

    0 for every other feature; empty if there is none, or too few rows.
    """
    rows = as_rows(x, axis)
    if rows is None or len(rows) < FEWEST or not bool(torch.isfinite(rows).all()):
        return ()
    rows = rows.double()
    parts = torch.tensor([0.05, 0.5, 0.95], dtype=rows.dtype, device=rows.device)
    low, middle, high = torch.nanquantile(torch.where(rows > 0, rows, math.nan), parts, 0)
    spans = (high > SPAN * low) & (high - middle > SKEWED * (middle - low)) & (rows.amin(0) >= 0)
    return tuple(torch.where(spans, low, 0.0).tolist()) if bool(spans.any()) else ()


def scale_by_logs(x: Tensor, units: Tensor) -> Tensor:
    """log1p(x / unit), not below 0, where a unit is above 0; the units stand along the features' axis."""
    return torch.where(units > 0, torch.log1p(x.clamp(min=0) / torch.where(units > 0, units, 1.0)), x)
