"""The statistics of a look: all sites' at once, out of the few numbers that were copied of each.

Notable: everything happens on the device; sums of squares are of elements over their largest, so nothing
over- or underflows in float32, and are added up in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unvanish.probes.live.chart import Slot

SEEN = (
    *("forward_rms", "spread", "cosine", "forward_nonfinite", "backward_log", "backward_zero"),
    *("flushed", "dead", "saturated", "entropy", "logit_max", "head_entropy"),
    *("log_z", "load_excess", "load_entropy", "idle_experts"),
)
FLAT = {"tanh": 0.9747, "sigmoid": 0.4873, "hardtanh": 1.0, "hardsigmoid": 0.5, "softsign": 0.7764}
CENTRE = {"sigmoid": 0.5, "hardsigmoid": 0.5}
SMALLEST = 6.1e-5  # the smallest normal number of float16


def summarise_forward(x: Tensor, sizes: Tensor) -> Tensor:
    """forward_rms, spread, cosine, forward_nonfinite of each site, (sites, 4); x is (sites, B, features)."""
    count, samples = sizes[:, :3].prod(1), sizes[:, 0]
    largest = x.abs().amax((1, 2))
    bad = torch.zeros_like(count)
    if not bool(largest.isfinite().all()) if x.device.type == "cpu" else True:
        bad = (~x.isfinite()).sum((1, 2)) / count
        x = torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
        largest = x.abs().amax((1, 2))
    unit = x / torch.where(largest > 0, largest, 1.0)[:, None, None]  # nothing over- or underflows in float32
    lengths = unit.square().sum(2).double()  # of each sample
    squares = lengths.sum(1)
    mean = unit.sum(1) / samples[:, None].float()
    spread = ((squares - samples * mean.square().sum(1).double()).clamp_min(0) / squares).sqrt()
    directions = torch.einsum("sbf,sb->sf", unit, lengths.clamp_min(1e-300).rsqrt().float())
    cosine = (directions.square().sum(1).double() - samples) / (samples * (samples - 1))
    return torch.stack([(squares / count).sqrt() * largest, spread, cosine, bad], 1)


def summarise_backward(g: Tensor, sizes: Tensor, any_low: bool) -> Tensor:
    """backward_log, backward_zero and flushed of each site, shape (sites, 3); NaN if no gradient came."""
    count = sizes[:, :3].prod(1)
    size = g.abs()
    largest = size.amax(1)
    unit = g / torch.where(largest > 0, largest, 1.0)[:, None]
    logs = largest.double().log() + 0.5 * (unit.square().sum(1).double() * sizes[:, 3] / count).log()
    something = size.count_nonzero(1).double()
    zeros = 1 - something / count
    low = sizes[:, 4] > 0
    tiny = torch.full_like(logs, math.nan)
    if any_low:
        tiny = ((g != 0) & (size < SMALLEST)).sum(1) / something.clamp_min(1)
        tiny = torch.where(low, torch.where(something == 0, 1.0, tiny), math.nan)
    return torch.where(sizes[:, 5:6] > 0, torch.stack([logs, zeros, tiny], 1), math.nan)


def measure_saturation(x: Tensor, sizes: Tensor, slots: Sequence[Slot]) -> Tensor:
    """Share of elements in the flat regions of a squashing function; x (sites, elements)."""
    found = torch.full_like(sizes[:, 0], math.nan)
    rows = [i for i, s in enumerate(slots) if s.key[1] in FLAT]
    if rows:
        edge = torch.tensor([FLAT[slots[i].key[1]] for i in rows], device=x.device)[:, None]
        centre = torch.tensor([CENTRE.get(slots[i].key[1], 0.0) for i in rows], device=x.device)[:, None]
        flat = ((x[rows] - centre).abs() >= edge) & (x[rows] != 0)
        found[rows] = flat.sum(1) / sizes[rows, :3].prod(1)
    return found
