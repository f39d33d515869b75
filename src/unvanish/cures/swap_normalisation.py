"""Replaces BatchNorm by LayerNorm, which does not couple the samples.

What it does

BatchNorm in a deep stack without skips makes the gradient explode at any initialisation (0.19 nats per layer
for ReLU): it amplifies the differences between samples. LayerNorm (GroupNorm with one group for images)
normalises each sample by itself. Scales and shifts are kept.

Safety

It changes the function: for untrained models.

Reference: Yang et al. 2019.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery import norms
from unvanish.surgery.anatomy import Anatomy
from unvanish.surgery.names import list_names
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """Every BatchNorm that ran."""
    anatomy = Anatomy(trace)
    found = [anatomy.site(i) for i in anatomy.sites("norm") if anatomy.site(i).kind == "batch_norm"]
    paths = tuple(dict.fromkeys(str(s.facts.get("module", s.path)) for s in found))
    if paths:
        yield replace(remedy, targets=paths, parameters={"to": "layer"})


def apply(surgery: Surgery, targets: tuple[str, ...], *, to: str = "layer", groups: int = 8) -> None:
    """Replace the normalisations at `targets`."""
    for path in targets:
        old = surgery.module(path)
        if not isinstance(old, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)):
            raise SurgeryError(f"swap-normalisation: {path} is a {type(old).__name__}, not a normalisation")
        new = norms.norm(old, to, groups)
        device, dtype = surgery.like(path)
        new = new.to(device, dtype)
        with torch.no_grad():
            for name, p in new.named_parameters():
                before = getattr(old, name, None)
                if before is not None and before.shape == p.shape:
                    p.copy_(before)
        surgery.swap(path, new, f"{type(old).__name__} becomes {type(new).__name__}")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    made = {
        "layer": "nn.LayerNorm(size) if flat else nn.GroupNorm(1, size)",
        "rms": "nn.RMSNorm(size) if flat else nn.GroupNorm(1, size)",
        "group": "nn.GroupNorm(next(g for g in range(8, 0, -1) if size % g == 0), size)",
        "batch": "nn.BatchNorm1d(size) if flat else nn.BatchNorm2d(size)",
    }[str(remedy.parameters.get("to", "layer"))]
    return [
        f"for name in {list_names(remedy.targets)}:",
        "    old = model.get_submodule(name)",
        "    size, flat = old.weight.numel(), isinstance(old, (nn.BatchNorm1d, nn.LayerNorm))",
        f"    model.set_submodule(name, {made})",
    ]


def case() -> tuple[Case, Remedy]:
    """Thirty layers with BatchNorm."""
    torch.manual_seed(0)
    parts = [p for _ in range(30) for p in (nn.Linear(24, 24), nn.BatchNorm1d(24), nn.ReLU())]
    net = nn.Sequential(*parts, nn.Linear(24, 3))
    batch = torch.randn(32, 24), torch.randint(0, 3, (32,))
    targets = tuple(str(3 * i + 1) for i in range(30))
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "swap-normalisation", targets, "one sample at a time"
    )
