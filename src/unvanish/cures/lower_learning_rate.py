"""Multiplies every learning rate of the optimizer by a factor.

What it does

If the step was tried that the optimizer would take, the factor makes the rate a third of the largest one that
lowers the loss of this batch; a tenth of the rate otherwise.

Safety

It changes the training, not the function. Units die and logits run away if steps are larger than about 1 % of
the weights' size; start here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.anatomy import round_digits
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"
START = 1 / 3  # of the critical rate: the loss falls nearly as far as it can in one step
LESS = 0.1  # without a critical rate


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The factor that brings the rate below the critical one."""
    tried = trace.facts.get("critical", [])
    multiple = tried[-1]["multiple"] if tried else 0.0
    settings = remedy.parameters
    least = (START * multiple if 0 < multiple < 1 else LESS) * settings.get("less", 1.0)
    factor = round_digits(settings.get("factor", least))
    yield replace(remedy, targets=(), parameters={"factor": factor}, safety="exact")


def apply(surgery: Surgery, targets: tuple[str, ...], *, factor: float = LESS) -> None:
    """Multiply the rates of the surgery's optimizer."""
    if surgery.optimizer is None:
        raise SurgeryError("lower-learning-rate works on the optimizer; pass it: apply(..., optimizer=...)")
    groups = surgery.optimizer.param_groups
    kept = [group["lr"] for group in groups]
    for group in groups:
        group["lr"] = group["lr"] * factor

    def undo() -> None:
        for group, rate in zip(groups, kept, strict=True):
            group["lr"] = rate

    surgery.note("optimizer", f"learning rate times {factor:g}", undo)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return [f"for group in optimizer.param_groups: group['lr'] *= {remedy.parameters.get('factor', LESS):g}"]


def case() -> tuple[Case, Remedy]:
    """A linear classifier."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(nn.Linear(8, 3), batch, nn.CrossEntropyLoss()), Remedy(
        "lower-learning-rate", (), "smaller steps", "exact"
    )
