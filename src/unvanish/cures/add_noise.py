"""Adds a little noise to equal weights, so that their units can become different.

What it does

Units with the same incoming and outgoing weights always get the same gradient. Gaussian noise of `std` times
the weights' own size makes them different.

Safety

Almost the same function, but not exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.names import list_names
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The weights of the finding."""
    names = {trace.sites[i].path for i in trace.where("parameter")}
    wanted = tuple(t for t in remedy.targets if t in names)
    if wanted:
        yield replace(remedy, targets=wanted, parameters={"std": remedy.parameters.get("std", 0.01)})


def apply(surgery: Surgery, targets: tuple[str, ...], *, std: float = 0.01) -> None:
    """Add noise of `std` times the root mean square (1/sqrt(fan_in) if all weights are zero)."""
    for name in targets:
        p = surgery.parameter(name)
        size = float(p.detach().double().square().mean().sqrt()) or max(1, p[0].numel()) ** -0.5
        surgery.fill(name, p.detach() + std * size * surgery.normal(p), f"noise of {std:g} times their size")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    std = remedy.parameters.get("std", 0.01)
    return [
        f"for name in {list_names(remedy.targets)}:",
        "    w = model.get_parameter(name).data",
        "    size = w.square().mean().sqrt().item() or w[0].numel() ** -0.5",
        f"    w += {std:g} * size * torch.randn_like(w)",
    ]


def case() -> tuple[Case, Remedy]:
    """A constant layer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    nn.init.constant_(net.get_parameter("0.weight"), 0.1)
    return Case(net, (torch.randn(8, 8), torch.randint(0, 3, (8,))), nn.CrossEntropyLoss()), Remedy(
        "add-noise", ("0.weight",), "twins", "retrain", {"std": 0.5}
    )
