"""Shrinks the output layer: predictions start undecided, so their error has a slope.

What it does

The weights of the last layer are multiplied by `factor`, which brings its outputs on the measured batch to
about size one; its biases are set to zero. A saturated sigmoid under a squared error, or logits of a
thousand, pass no error back; near zero they do.

Safety

It changes the function: for untrained models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures.reinitialise import bias_of
from unvanish.surgery.anatomy import Anatomy, round_digits
from unvanish.surgery.names import list_names
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The last layer, with the factor that brings its outputs (without the bias) to about size one."""
    anatomy = Anatomy(trace)
    layers = anatomy.before(remedy.targets) or [x for x in anatomy.layers if x.head]
    if layers:
        last = layers[-1]
        own = trace.value(last.site, "weight_log")
        factor = 1.0 / max(1.0, float(trace.value(last.site, "forward_rms")))
        if own == own:  # no larger than a weight of unit gain
            factor = (
                min(factor, math.sqrt(last.fan_in / last.fan_out) / math.exp(own)) if last.bias else factor
            )
        yield replace(
            remedy, targets=(last.weight,), parameters={"factor": round_digits(factor)}, safety="retrain"
        )


def apply(surgery: Surgery, targets: tuple[str, ...], *, factor: float = 0.1) -> None:
    """Multiply the weights `targets` by `factor`; set their biases to zero."""
    for name in targets:
        surgery.fill(name, surgery.parameter(name).detach() * factor, f"times {factor:.4g}")
        bias = bias_of(surgery, name)
        if bias:
            surgery.fill(bias, 0.0, "zero")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    names, factor = remedy.targets or ("head.weight",), remedy.parameters.get("factor", 0.1)
    return [
        f"for name in {list_names(names)}:",
        f"    model.get_parameter(name).data *= {factor:.4g}",
        "    layer = model.get_submodule(name.rpartition('.')[0])",
        "    if getattr(layer, 'bias', None) is not None:",
        "        nn.init.zeros_(layer.bias)",
    ]


def case() -> tuple[Case, Remedy]:
    """Huge logits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        net.get_parameter("2.weight").mul_(1000)
    return Case(net, (torch.randn(8, 8), torch.randint(0, 3, (8,))), nn.CrossEntropyLoss()), Remedy(
        "shrink-output-layer", ("2.weight",), "huge logits", "retrain", {"factor": 0.001}
    )
