"""Fixup: scales residual branches so that the network trains without normalisation.

What it does

In each of the L branches of m layers, the first m - 1 are multiplied by L^(-1/(2m-2)) and the last one is set
to zero, so that a step of training changes the output by the size of the step, at any depth.

Safety

It changes the function: for untrained models.

Reference: Zhang, Dauphin and Ma 2019.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.branches import branches, example, scale_parameters
from unvanish.surgery.names import each_parameter
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The inner weights and the ends of all branches; one remedy for each length of branch."""
    found = [b for b in branches(trace) if len(b.weights) > 1]
    for layers in sorted({len(b.weights) for b in found}):
        alike = [b for b in found if len(b.weights) == layers]
        inner = tuple(dict.fromkeys(w for b in alike for w in b.weights[:-1]))
        ends = [n for b in alike for n in b.end]
        settings = {"ends": ends, "blocks": len(found), "layers": layers}
        yield replace(remedy, targets=inner, parameters=settings, safety="retrain")


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    ends: list[str] = [],  # noqa: B006
    blocks: int = 1,
    layers: int = 2,
) -> None:
    """Scale the inner weights `targets` of branches of `layers` layers; set the `ends` to zero."""
    factor = blocks ** (-1 / (2 * layers - 2)) if layers > 1 else 1.0
    scale_parameters(surgery, targets, factor, f"times {factor:.4g}")
    scale_parameters(surgery, tuple(ends), 0.0, "zero")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    blocks, layers = remedy.parameters.get("blocks", 1), remedy.parameters.get("layers", 2)
    factor = blocks ** (-1 / (2 * layers - 2)) if layers > 1 else 1.0
    ends = tuple(map(str, remedy.parameters.get("ends", ())))
    return [
        *each_parameter(remedy.targets, f"{{}}.data *= {factor:.4g}  # all of a branch but its end"),
        *each_parameter(ends, "nn.init.zeros_({})"),
    ]


def case() -> tuple[Case, Remedy]:
    """Sixteen unscaled blocks."""
    net, batch = example()
    inner, ends = (
        tuple(f"{i}.one.weight" for i in range(16)),
        [f"{i}.two.{k}" for i in range(16) for k in ("weight", "bias")],
    )
    settings = {"ends": ends, "blocks": 16, "layers": 2}
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "fixup", inner, "steps that do not grow with depth", "retrain", settings
    )
