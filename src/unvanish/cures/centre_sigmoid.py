"""Starts a sigmoid network exactly as a critical tanh network; the sigmoids stay.

What it does

A sigmoid has a slope of at most 1/4 and mean 1/2; no choice of weights alone makes a deep sigmoid net
critical. But sigma(x) = (1 + tanh(x/2))/2, so with critical tanh weights V and biases c the sigmoid layer W =
4V (the first one 2V), b = 2c - W 1/2 (the first one 2c) computes the same network. Fifty layers go from
chance to 94 %.

Safety

For untrained models: the weights are redrawn. The activation function stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures.reinitialise import bias_of, can_be_drawn, draw_weights
from unvanish.surgery.anatomy import Anatomy
from unvanish.surgery.names import list_names
from unvanish.surgery.surgery import Surgery
from unvanish.theory.initialisers import start

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """Every layer before or after a sigmoid; the first and the last are listed separately."""
    layers = [x for x in Anatomy(trace).layers if "sigmoid" in (x.activation, x.source)]
    if not layers or not all(x.bias for x in layers if x.source == "sigmoid"):
        return
    first = [x.weight for x in layers if x.source != "sigmoid"]
    last = [x.weight for x in layers if x.activation != "sigmoid"]
    reads = next((x.reads for x in layers if math.isfinite(x.reads)), 1.0)
    settings = {"first": first, "last": last, "reads": float(f"{reads:.6g}"), "depth": len(layers)}
    yield replace(remedy, targets=tuple(x.weight for x in layers), parameters=settings, safety="retrain")


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    first: list[str] = [],  # noqa: B006
    last: list[str] = [],  # noqa: B006
    reads: float = 1.0,
    depth: int = 10,
) -> None:
    """Draw the weights `targets`; the `first` read data of size `reads`, the `last` feed no sigmoid."""
    point = start("tanh", depth)
    for name in targets:
        weight = surgery.parameter(name)
        gain = math.sqrt(max(point.q - point.sb**2, 0.1 * point.q)) / reads if name in first else point.sw
        gain = 1 / math.sqrt(point.power) if name in last and name not in first else gain
        method = (
            "orthogonal"
            if depth > 20 and can_be_drawn(weight, "orthogonal") and name not in first
            else "gaussian"
        )
        v = draw_weights(surgery, weight, gain, method).double()
        bias = bias_of(surgery, name)
        c = (
            surgery.normal(surgery.parameter(bias)).double() * (0.0 if name in last else point.sb)
            if bias
            else None
        )
        w = v * (2.0 if name in first else 4.0) / (2.0 if name in last else 1.0)
        surgery.fill(name, w.to(weight.dtype), "critical for tanh, rescaled for the sigmoid")
        if c is not None:
            b = c * (1.0 if name in last else 2.0)
            b = b if name in first else b - w.flatten(1).sum(1) / 2
            surgery.fill(bias, b.to(weight.dtype), "compensates the sigmoid's mean")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    p = remedy.parameters
    point = start("tanh", max(1, p.get("depth", 10)))
    enter = math.sqrt(max(point.q - point.sb**2, 0.1 * point.q)) / p.get("reads", 1.0)
    first, last = (list_names(tuple(map(str, p.get(key, ())))) for key in ("first", "last"))
    return [
        f"first, last = {first}, {last}",
        f"for name in {list_names(remedy.targets)}:",
        "    layer = model.get_submodule(name.rpartition('.')[0])",
        "    w, b = layer.weight.data, layer.bias.data",
        f"    gain = {enter:.4g} if name in first else {point.sw:.4g}",
        f"    gain = {1 / math.sqrt(point.power):.4g} if name in last and name not in first else gain",
        "    gain *= (2 if name in first else 4) / (2 if name in last else 1)",
        "    nn.init.normal_(w, std=gain / w[0].numel() ** 0.5)",
        f"    nn.init.normal_(b, std=0.0 if name in last else {2 * point.sb:.4g})",
        "    if name not in first:",
        "        b -= w.flatten(1).sum(1) / 2  # takes the sigmoid's mean away",
    ]


def case() -> tuple[Case, Remedy]:
    """Ten sigmoid layers."""
    torch.manual_seed(0)
    parts = [p for i in range(10) for p in (nn.Linear(16 if i else 8, 16), nn.Sigmoid())]
    net = nn.Sequential(*parts, nn.Linear(16, 3))
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    names = tuple(f"{2 * i}.weight" for i in range(11))
    settings = {"first": ["0.weight"], "last": ["20.weight"], "depth": 10}
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "centre-sigmoid", names, "critical", "retrain", settings
    )
