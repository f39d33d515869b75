"""PyTorch itself warned of the gradients while the model ran.

Why it harms

A warning scrolls by once and is forgotten; an examination would even hide it. What PyTorch says
about gradients is often the fault itself: a block that will get none, a hook that sees half of
them.

An example

    UserWarning: None of the inputs have requires_grad=True. Gradients will be None

How it is measured

The warnings that are given during one forward, loss and backward are collected, and those that
speak of gradients are shown, each once. Left out are conversions to numbers and copies, which
are followed themselves (GRF001, GRF006).

Limits

    LONGEST = 200    characters of a warning that are repeated: more than any of PyTorch's own
                     first sentences

A warning was given or not. One that says that gradients will be None is a warning here too, any
other a note.

Remedies

Do what the warning says (advice).

When it is wrong

A library may warn of what it does on purpose.

References: The PyTorch documentation, torch.utils.checkpoint; torch.nn.Module,
register_full_backward_hook.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, Remedy
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import PART

NEEDS = ("static",)
NONE = "will be None"
LONGEST = 200  # characters of a warning that the cause repeats


def check(trace: Trace) -> Iterable[Fault]:
    """One fault for each warning."""
    return [_repeat(text, line) for text, line in trace.facts.get("warned", {}).items()]


def _repeat(text: str, line: str) -> Fault:
    short = textwrap.shorten(text, LONGEST, placeholder="...")
    where = f" ({line})" if line else ""
    return Fault(
        severity="warning" if NONE in text else "note",
        cause=f"PyTorch warned{where}: {short}",
        sites=(),
        evidence=(Evidence("the warning's line", line or "inside PyTorch"),),
        remedies=(Remedy("heed-warning", (), "do what the warning says", safety="advice"),),
        direction="blocked" if NONE in text else "none",
        tier=PART,
    )


def sick() -> Case:
    """A block that warns that its gradients will be None."""
    return _case(warn=True)


def healthy() -> Case:
    """A block that warns of something else."""
    return _case(warn=False)


def _case(warn: bool) -> Case:
    import warnings

    import torch
    from torch import Tensor, nn

    class Block(nn.Module):
        """Two layers, and a warning."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            text = "None of the inputs have requires_grad=True. Gradients will be None"
            warnings.warn(text if warn else "this block is slow on a CPU", stacklevel=1)
            out: Tensor = self.last(torch.relu(self.first(x)))
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Block(),
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="a block that warns",
        )
