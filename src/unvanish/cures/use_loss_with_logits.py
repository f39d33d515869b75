"""A loss on logits in the place of a squared error on probabilities.

What it does

Under (sigma(z) - y)^2 the error is multiplied by sigma'(z), which is nothing where the net is sure and wrong:
at a logit of 20 the gradient is 2e-9, while cross-entropy passes 1. The output's sigmoid, tanh or softmax is
left out, and the loss becomes the cross-entropy that contains it.

Safety

Another function and another loss, whose values cannot be compared with the old ones. `receipt.loss`
(`cured.loss`) is the loss to train with.

Reference: Solla et al. 1988.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.losses import WithLogits, take_away
from unvanish.surgery.surgery import Surgery, SurgeryError

SAFETY = "retrain"
KINDS = ("sigmoid", "tanh", "softmax")


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The output function that the loss reads."""
    for i in trace.where("output"):
        kind = str(trace.sites[i].facts.get("activation", ""))
        if kind in KINDS:
            target = str(trace.sites[i].facts.get("site") or "") or remedy.targets[0]
            yield replace(remedy, targets=(target,), parameters={"kind": kind}, safety="retrain")
            return


def apply(surgery: Surgery, targets: tuple[str, ...], *, kind: str = "sigmoid") -> None:
    """Leave the output function `kind` at the target out, and train with the loss that contains it."""
    if kind not in KINDS:
        raise SurgeryError(f"use-loss-with-logits: no loss for {kind!r}; use one of {', '.join(KINDS)}")
    for target in targets:
        take_away(surgery, target, kind)
    surgery.replace_loss(
        WithLogits(kind), f"cross-entropy with logits, in place of a squared error behind a {kind}"
    )


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    kind = remedy.parameters.get("kind", "sigmoid")
    loss = {"sigmoid": "nn.BCEWithLogitsLoss()", "softmax": "nn.CrossEntropyLoss()"}.get(
        kind, "nn.BCEWithLogitsLoss()  # of (2 * logits, (1 + y) / 2)"
    )
    return [f"loss_fn = {loss}  # and no {kind} in the model"]


def case() -> tuple[Case, Remedy]:
    """A sigmoid under a squared error."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Sigmoid())
    batch = torch.randn(8, 8), torch.randint(0, 2, (8, 3)).float()
    return Case(net, batch, nn.MSELoss()), Remedy(
        "use-loss-with-logits", ("3",), "no slope lost", "retrain", {"kind": "sigmoid"}
    )
