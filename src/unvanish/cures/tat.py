"""TAT: chooses the slope of a leaky ReLU for the depth, so that a plain deep net trains like a ResNet.

What it does

With depth, ReLU makes all samples alike; a linear net keeps them apart but computes nothing. TAT takes the
leaky ReLU whose correlation map, composed over all L layers, takes 0 to 0.9, with weights of gain
sqrt(2/(1+a^2)): slope 0.18 for 20 layers, 0.43 for 50, 0.57 for 100. Weights are redrawn, biases set to zero.

Safety

It changes the function: for untrained models. It is for rectifiers; for smooth functions use `dks`.

Reference: Zhang, Botev and Martens 2022.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures import reinitialise
from unvanish.cures.swap_activation import write_swap
from unvanish.surgery.activations import replace_calls
from unvanish.surgery.anatomy import Anatomy, round_digits
from unvanish.surgery.surgery import Surgery
from unvanish.theory.closed_forms import leaky_gain
from unvanish.theory.shaping import tat_slope

SAFETY = "retrain"
KINDS = ("relu", "leaky_relu", "gelu", "silu", "elu", "relu6", "mish", "hardswish")


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """All rectifiers, and the weights of the layers around them."""
    anatomy = Anatomy(trace)
    sites = [anatomy.site(i) for i in anatomy.sites("activation")]
    wanted = tuple(s.label for s in sites if s.kind in KINDS)
    hidden = [x for x in anatomy.layers if x.source in KINDS and not x.head]
    if wanted and hidden:
        depth = max(1, len(hidden))
        settings = {"slope": round_digits(tat_slope(depth)), "weights": [x.weight for x in hidden]}
        yield replace(remedy, targets=wanted, parameters=settings, safety="retrain")


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    slope: float = 0.4305,
    weights: list[str] = [],  # noqa: B006
    method: str = "orthogonal",
) -> None:
    """Put leaky ReLUs of this `slope` at `targets`; draw the `weights` that read them with their gain."""
    replace_calls(surgery, targets, "leaky_relu", {"negative_slope": slope})
    reinitialise.apply(surgery, tuple(weights), gain=leaky_gain(slope), method=method)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    slope, method = remedy.parameters.get("slope", 0.4305), remedy.parameters.get("method", "orthogonal")
    drawn = {"gain": leaky_gain(slope), "method": method}
    weights = tuple(map(str, remedy.parameters.get("weights", ())))
    redraw = reinitialise.code(replace(remedy, targets=weights, parameters=drawn)) if weights else []
    return [*write_swap(remedy.targets, "leaky_relu", {"negative_slope": float(f"{slope:.4g}")}), *redraw]


def case() -> tuple[Case, Remedy]:
    """Thirty ReLU layers."""
    torch.manual_seed(0)
    parts = [p for _ in range(30) for p in (nn.Linear(24, 24), nn.ReLU())]
    net = nn.Sequential(*parts, nn.Linear(24, 3))
    batch = torch.randn(16, 24), torch.randint(0, 3, (16,))
    targets, weights = tuple(str(2 * i + 1) for i in range(30)), [f"{2 * i}.weight" for i in range(30)]
    settings = {"slope": tat_slope(30), "weights": weights}
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "tat", targets, "a slope for the depth", "retrain", settings
    )
