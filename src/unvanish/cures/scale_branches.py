"""Scales the branches of a residual network so that their sum does not make the stream grow.

What it does

With L branches of unit gain the stream and the gradient grow by a factor of up to sqrt 2 per block. The last
layer of each branch (or the normalisation that ends it) is multiplied by `scale`, L^-1/2 by default, so all
branches together about double the stream's power.

Safety

It changes the function: for untrained models, or with training after it.

References: Hanin and Rolnick 2018; Hayou et al. 2021 (stable ResNet).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.anatomy import round_digits
from unvanish.surgery.branches import branches, example, scale_parameters
from unvanish.surgery.names import each_parameter
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The parameters that end every branch."""
    found = branches(trace)
    if found:
        ends = tuple(dict.fromkeys(name for b in found for name in b.end))
        yield replace(
            remedy, targets=ends, parameters={"scale": round_digits(len(found) ** -0.5)}, safety="retrain"
        )


def apply(surgery: Surgery, targets: tuple[str, ...], *, scale: float = 0.1) -> None:
    """Multiply the parameters `targets`, which end branches, by `scale`."""
    scale_parameters(surgery, targets, scale, f"times {scale:g}")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return each_parameter(remedy.targets, f"{{}}.data *= {remedy.parameters.get('scale', 0.1):.4g}")


def case() -> tuple[Case, Remedy]:
    """Sixteen unscaled blocks."""
    net, batch = example()
    targets = tuple(f"{i}.two.{k}" for i in range(16) for k in ("weight", "bias"))
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "scale-branches", targets, "L^-1/2", "retrain", {"scale": 0.25}
    )
