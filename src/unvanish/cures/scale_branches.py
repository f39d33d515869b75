"""Scales the branches of a residual network so that their sum does not make the stream grow.

What it does

With L branches of unit gain the stream and the gradient grow by a factor of up to sqrt 2 per block. What each
branch adds is multiplied by `scale`, L^-1/2 by default, so all branches together about double the stream's
power. The factor stands behind the last layer of the branch, not in its weights: a small weight that gets the
same gradient moves sqrt(L) times as far, and 30 blocks then diverged under SGD at rates at which they train
with the factor. Where the last layer is no module of its own (as in attention) its weights are multiplied.

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
from unvanish.surgery.grafts import Scale
from unvanish.surgery.names import each_parameter, list_names
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The module that ends every branch, or its weights where it is none of its own."""
    found = branches(trace)
    if found:
        modules = tuple(dict.fromkeys(b.module for b in found if b.module))
        weights = list(dict.fromkeys(name for b in found if not b.module for name in b.end))
        settings = {"scale": round_digits(len(found) ** -0.5), **({"weights": weights} if weights else {})}
        yield replace(remedy, targets=modules, parameters=settings, safety="retrain")


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    weights: list[str] = [],  # noqa: B006
    scale: float = 0.1,
) -> None:
    """Multiply by `scale` the outputs of the modules `targets`, and the parameters `weights`."""
    for path in targets:
        surgery.graft(path, Scale(scale), f"output times {scale:g}")
    scale_parameters(surgery, tuple(weights), scale, f"times {scale:g}")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    scale, weights = (
        remedy.parameters.get("scale", 0.1),
        tuple(map(str, remedy.parameters.get("weights", ()))),
    )
    hook = f"    model.get_submodule(path).register_forward_hook(lambda layer, given, out: {scale:.4g} * out)"
    loop = [f"for path in {list_names(remedy.targets)}:  # x + {scale:.4g} * branch(x)", hook]
    return [*(loop if remedy.targets else ()), *each_parameter(weights, f"{{}}.data *= {scale:.4g}")]


def case() -> tuple[Case, Remedy]:
    """Sixteen unscaled blocks."""
    net, batch = example()
    targets = tuple(f"{i}.two" for i in range(16))
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "scale-branches", targets, "L^-1/2", "retrain", {"scale": 0.25}
    )
