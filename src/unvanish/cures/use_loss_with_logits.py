"""Replaces a squared error on probabilities by a loss on logits.

What it does

Under (sigma(z) - y)^2 the error is multiplied by sigma'(z), which vanishes if the net is confident and wrong:
at a logit of 20 the gradient is 2e-9, while cross-entropy passes 1. The output's sigmoid, tanh or softmax is
removed, and the loss becomes the cross-entropy that contains it.

Safety

It changes the function and the loss; values of the two losses cannot be compared. `receipt.loss`
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
from unvanish.cures.swap_output_function import write_output
from unvanish.surgery.losses import WithLogits, remove_output_function
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

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
    """Remove the output function `kind` at the target, and train with the loss that contains it."""
    if kind not in KINDS:
        raise SurgeryError(f"use-loss-with-logits: no loss for {kind!r}; use one of {', '.join(KINDS)}")
    for target in targets:
        remove_output_function(surgery, target, kind)
    surgery.replace_loss(
        WithLogits(kind), f"cross-entropy with logits, in place of a squared error on a {kind}"
    )


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    kind = str(remedy.parameters.get("kind", "sigmoid"))
    loss = {
        "sigmoid": "nn.BCEWithLogitsLoss()",
        "softmax": "nn.CrossEntropyLoss()",
        "tanh": "lambda z, y: nn.functional.binary_cross_entropy_with_logits(2 * z, (1 + y) / 2)",
    }[kind]
    return [*write_output(remedy.targets, kind, "identity"), f"loss_fn = {loss}"]


def case() -> tuple[Case, Remedy]:
    """A sigmoid under a squared error."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Sigmoid())
    batch = torch.randn(8, 8), torch.randint(0, 2, (8, 3)).float()
    return Case(net, batch, nn.MSELoss()), Remedy(
        "use-loss-with-logits", ("3",), "no slope lost", "retrain", {"kind": "sigmoid"}
    )
