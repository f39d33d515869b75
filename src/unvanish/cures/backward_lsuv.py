"""Scales each layer until it keeps this batch's gradient, measured: LSUV for the backward gain.

What it does

Layer-sequential unit variance (LSUV) gives every output unit variance, which does not keep the gradient: in a
50-layer tanh net it grows 59 times. Here each layer's weights are divided by the gain of the gradient from
its output to the layer below, measured on a batch, in a few rounds, since the slopes change with the sizes.
It needs no theory, so it also works with padding, unusual activations and branches.

Safety

It changes the function: for untrained models.

Reference: Mishkin and Matas 2016 (LSUV), with the gain of Schoenholz et al. 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import nn

from unvanish.core import depth
from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.probes.layers import name_parameters
from unvanish.probes.record import record
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"
MOST = 1.5  # nats a round


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """All layers on the depth axis."""
    if depth.read(trace) is not None:
        yield replace(remedy, targets=(), safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...], *, rounds: int = 8) -> None:
    """Rescale in place; needs the surgery's batch. `targets`, if given, are the only weights touched."""
    if surgery.batch is None:
        raise SurgeryError(
            "backward-lsuv measures a batch; pass one: apply(model, prescription, batch=batch)"
        )
    total: dict[str, float] = {}
    named = name_parameters(surgery.model)
    kept = {n: p.detach().clone() for n, p in named.items() if p.ndim > 1}
    for _ in range(rounds):
        gains = layer_gains(record(surgery.model, surgery.batch, surgery.loss))
        gains = {n: g for n, g in gains.items() if n in kept and (not targets or n in targets)}
        if not gains or max(map(abs, gains.values())) < 0.01:
            break
        with torch.no_grad():
            for name, gain in gains.items():
                named[name].mul_(math.exp(-gain))
                total[name] = total.get(name, 0.0) - gain
    changed = {n: named[n].detach().clone() for n in total}
    with torch.no_grad():
        for name in total:
            named[name].copy_(kept[name])
    for name, value in changed.items():
        surgery.fill(name, value, f"scaled by {math.exp(total[name]):.4g}")


def layer_gains(trace: Trace) -> Mapping[str, float]:
    """Ln of the gradient's gain from each layer's output to that of the layer below, by weight."""
    reading = depth.read(trace)
    if reading is None:
        return {}
    found: dict[str, float] = {}
    for above, below in zip(reading.layers, reading.layers[1:], strict=False):
        weight = trace.sites[above].facts.get("weight")
        gain = trace.value(below, "backward_log") - trace.value(above, "backward_log")
        if weight and math.isfinite(gain):
            found[str(weight)] = max(-MOST, min(MOST, gain))
    return found


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    rounds = remedy.parameters.get("rounds", 8)
    return [
        "layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]",
        "norms = {}  # of the gradient at each layer's output",
        "def look(layer, args, out):",
        "    out.register_hook(lambda grad: norms.__setitem__(layer, grad.norm()))",
        f"for _ in range({rounds}):",
        "    hooks = [layer.register_forward_hook(look) for layer in layers]",
        "    loss_fn(model(x), y).backward()",
        "    model.zero_grad()",
        "    for hook in hooks:",
        "        hook.remove()",
        "    for below, above in zip(layers, layers[1:]):",
        "        above.weight.data *= norms[above] / norms[below].clamp_min(1e-30)",
    ]


def case() -> tuple[Case, Remedy]:
    """Twelve tanh layers at PyTorch's default."""
    torch.manual_seed(0)
    parts = [p for _ in range(12) for p in (nn.Linear(32, 32), nn.Tanh())]
    net = nn.Sequential(*parts, nn.Linear(32, 4))
    batch = torch.randn(16, 32), torch.randint(0, 4, (16,))
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy("backward-lsuv", (), "unit gain, measured")
