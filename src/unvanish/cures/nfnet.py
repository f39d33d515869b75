"""Normaliser-free branches: x + alpha f(x / beta), where beta is the stream's expected size.

What it does

The l-th block sees a stream of variance 1 + l alpha^2. Its first layer is divided by the square root of that,
its last one multiplied by alpha (0.2), and every kernel is standardised: mean removed, unit variance. Both
factors are folded into the weights.

Safety

It changes the function: for untrained models.

Reference: Brock et al. 2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.branches import branches, example, scale_parameters
from unvanish.surgery.names import list_names
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The first weight of every branch, and the weight that ends it."""
    found = branches(trace)
    if found:
        settings = {"ends": [b.end[0] for b in found], "alpha": 0.2}
        yield replace(
            remedy, targets=tuple(b.weights[0] for b in found), parameters=settings, safety="retrain"
        )


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    ends: list[str] = [],  # noqa: B006
    alpha: float = 0.2,
    gain: float = math.sqrt(2),
    standardise: bool = True,
) -> None:
    """Scale the first weights `targets` and the last ones `ends`, in the order of the blocks."""
    for block, (first, last) in enumerate(zip(targets, ends, strict=True)):
        for name in {first, last} if standardise else ():
            weight = surgery.parameter(name)
            if weight.ndim > 1:
                surgery.fill(name, standardise_rows(weight, gain), "standardised")
        scale_parameters(surgery, (first,), (1 + block * alpha**2) ** -0.5, "divided by the stream's size")
        scale_parameters(surgery, (last,), alpha, f"times {alpha:g}")


def standardise_rows(weight: torch.Tensor, gain: float) -> torch.Tensor:
    """Each unit's weights with mean 0 and variance gain^2 / fan_in."""
    rows = weight.detach().double().flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    size = rows.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
    drawn: torch.Tensor = gain * rows / (size * rows.shape[1] ** 0.5)
    return drawn.view_as(weight).to(weight.dtype)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    p = remedy.parameters
    alpha, gain = p.get("alpha", 0.2), p.get("gain", math.sqrt(2))
    firsts, lasts = list_names(remedy.targets), list_names(tuple(map(str, p.get("ends", ()))))
    standardise = [
        "    for name in {first, last}:",
        "        w = model.get_parameter(name).data.flatten(1)",
        "        w -= w.mean(1, keepdim=True)",
        f"        w *= {gain:.4g} / (w.square().sum(1, keepdim=True) + 1e-12).sqrt()",
    ]
    return [
        f"for block, (first, last) in enumerate(zip({firsts}, {lasts})):",
        *(standardise if p.get("standardise", True) else []),
        f"    model.get_parameter(first).data /= (1 + block * {alpha:g} ** 2) ** 0.5",
        f"    model.get_parameter(last).data *= {alpha:g}",
    ]


def case() -> tuple[Case, Remedy]:
    """Sixteen unscaled blocks."""
    net, batch = example()
    first, ends = tuple(f"{i}.one.weight" for i in range(16)), [f"{i}.two.weight" for i in range(16)]
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "nfnet", first, "a stream of known size", "retrain", {"ends": ends}
    )
