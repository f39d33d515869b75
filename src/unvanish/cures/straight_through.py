"""Passes the gradient straight through an operation without a slope.

What it does

round, sign, floor, ceil and clamp keep their outputs; their gradient becomes that of the identity: y = x +
(f(x) - x).detach(). The discrete choices of a module (comparisons, indices of a largest value, samples,
casts to integers) keep their outputs too; their gradient becomes that of a soft choice, of x itself where
it is a probability, else of its sigmoid or softmax.

Safety

The outputs stay the same; the gradient becomes a biased but useful estimate. If the operation is meant to cut
the gradient, leave it.

Reference: Bengio, Leonard and Courville 2013.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.choices import list_handlers
from unvanish.surgery.names import split_label
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"
KINDS = ("round", "sign", "floor", "ceil", "trunc", "clamp", "hardtanh", "clip", "heaviside", "bernoulli")
WHOLE = "(model)"
CHOICES = ("argmax", "comparison", "sampling", "integers")  # how a graph is left by a choice


CODE = {
    "argmax": "y = soft + (one_hot(soft.argmax(-1), soft.shape[-1]) - soft).detach()  # soft = x.softmax(-1)",
    "comparison": "y = soft + ((x > 0).float() - soft).detach()  # soft = torch.sigmoid(x)",
    "sampling": "y = torch.nn.functional.gumbel_softmax(logits, hard=True)",
    "integers": "y = x + (x.int().float() - x).detach()",
}


class Through:
    """f(x) forward, x backward."""

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        out, x = func(*args, **kwargs), args[0]
        if not isinstance(x, Tensor) or not isinstance(out, Tensor) or not x.is_floating_point():
            return out
        return x + (out - x).detach() if out.shape == x.shape else out


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The operations of the finding that can be passed through, or the modules that choose."""
    if remedy.parameters.get("choice") in CHOICES:
        yield replace(remedy, safety="retrain")
        return
    wanted = tuple(t for t in remedy.targets if split_label(t)[0].rpartition(".")[2] in KINDS)
    if wanted:
        yield replace(remedy, targets=wanted, parameters={}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...], *, choice: str = "") -> None:
    """Pass the gradient through the functions at `targets`, "module.round"; or through a module's choices."""
    if choice:
        for target in dict.fromkeys(targets):
            surgery.graft(
                "" if target == WHOLE else target, Rewire(list_handlers()), "discrete choices passed through"
            )
        return
    for target in dict.fromkeys(split_label(t)[0] for t in targets):
        parent, _, kind = target.rpartition(".")
        if kind not in KINDS:
            raise SurgeryError(f"straight-through: {target} is none of {', '.join(KINDS)}")
        surgery.graft(parent, Rewire({kind: Through()}, own=True), f"{kind} passed through")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    if choice := remedy.parameters.get("choice"):
        return [CODE.get(str(choice), CODE["argmax"])]
    named = split_label(remedy.targets[0])[0].rpartition(".")[2] if remedy.targets else ""
    kind = named if named in KINDS else "round"
    return [f"h = x + (torch.{kind}(x) - x).detach()  # in place of torch.{kind}(x)"]


class Rounded(nn.Module):
    """A layer whose outputs are rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.round(3 * self.layer(x)))
        return out


def case() -> tuple[Case, Remedy]:
    """A rounding in a forward."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(Rounded(), batch, nn.CrossEntropyLoss()), Remedy(
        "straight-through", ("round",), "a slope of one"
    )
