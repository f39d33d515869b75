"""Starts the branches of a residual network at zero: at first every block is the identity.

What it does

The last layer of each branch (or the scale of the normalisation that ends it) is set to zero. The gradient
passes along the identity unchanged, and training grows the branches as needed. Only the last layer may be
zero: with a zero factor after it, neither would ever get a gradient.

Safety

It changes the function: for untrained models.

References: Goyal et al. 2017 (zero gamma); Zhang et al. 2019 (Fixup); De and Smith 2020 (SkipInit).
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
    """The parameters that end every branch."""
    found = branches(trace)
    if found:
        ends = tuple(dict.fromkeys(name for b in found for name in b.end))
        yield replace(remedy, targets=ends, parameters={}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Set the parameters `targets`, which end branches, to zero."""
    scale_parameters(surgery, targets, 0.0, "zero")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return each_parameter(remedy.targets, "nn.init.zeros_({})")


def case() -> tuple[Case, Remedy]:
    """Sixteen unscaled blocks."""
    net, batch = example()
    targets = tuple(f"{i}.two.{k}" for i in range(16) for k in ("weight", "bias"))
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy("zero-init-branches", targets, "identity at first")
