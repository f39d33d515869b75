"""A backward that somebody wrote disagrees with its forward: the gradient is not that of the
output.

Why it harms

All that lies before it follows a wrong direction, and often trains anyway, only worse. A wrong
sign climbs; a forgotten factor or a transposed matrix looks like a badly chosen learning rate.

An example

    @staticmethod
    def backward(ctx, g):
        x, = ctx.saved_tensors
        return -g * torch.cos(x)              # of sin(x): the sign is wrong

How it is measured

Each `torch.autograd.Function` that the forward calls is run again in float64, on copies of what
it was given. Some numbers of each input are moved, by two steps, and the change of a random
projection of the output is compared with the gradient that the backward gives. Where the two
steps disagree lies a kink, and nothing is said.

Innocent are functions whose output does not move while their gradient does (rounding, spikes,
quantisers: straight-through, with all their inputs). Those, too, must turn with the gradient that
arrives: what stays the same when it is negated forgot to multiply by it. That is a note if the
function makes a single number, as a loss at the end may, and nothing if it passes another input on,
to hang a loss on it. One that returns its input unchanged is a note: a gradient that is reversed,
scaled or clipped on purpose. Of a straight-through estimator by hand, the sign with which p and its
detached copy enter: b - p + p.detach() has the value b and the slope -1.

Limits

None in the judgement: the gradient may differ by 0.01 from the difference, whose own error is
1e-6 in float64 (measured).

Remedies

Mend the backward, and test it with `torch.autograd.gradcheck` (advice).

When it is wrong

A backward that is meant to differ, such as guided backpropagation. A function that does not run in
float64 is not judged.

References: The PyTorch documentation, torch.autograd.gradcheck; Ganin and Lempitsky 2015
(reversal).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.facts import WrongGradientFacts
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import DATA, REMARK

NEEDS = ("step",)
ORDINALS = ("first", "second", "third", "fourth", "fifth")


def check(trace: Trace) -> Iterable[Fault]:
    """One fault for each function whose gradient is wrong."""
    if not trace.where("parameter", reachable=True):
        raise NotApplicable("the loss reaches no parameter")
    by_function: dict[tuple[str, str], list[WrongGradientFacts]] = {}
    for wrong in trace.facts.get("wrong_gradients", []):
        by_function.setdefault((wrong["path"], wrong["function"]), []).append(wrong)
    turned = [_name_turned(*place) for place in trace.facts.get("turned_estimators", [])[:1]]
    return [_name(own) for own in by_function.values()] + turned


def _name(wrong: list[WrongGradientFacts]) -> Fault:
    meant = all(w["identity"] for w in wrong)
    first = wrong[0]
    where = first["path"] or "(model)"
    which = " and ".join(_count(w["argument"]) for w in wrong)
    site = f"{where}.{first['function']}" if first["path"] else first["function"]
    return Fault(
        severity="note" if meant else "error",
        cause=f"the backward of {first['function']} in {where} gives its {which} input "
        + (_tell_deaf(meant) if first["deaf"] else _spell(first["factor"]))
        + (", as it seems on purpose" if meant and not first["deaf"] else ""),
        sites=(site,),
        evidence=(
            Evidence(
                "gradient over difference",
                "varies" if math.isnan(first["factor"]) else first["factor"],
                limit="1",
                site=site,
            ),
        ),
        remedies=(
            Remedy(
                "mend-backward",
                (site,),
                "multiply by the gradient that arrives"
                if first["deaf"]
                else "return the derivative of the forward; compare with torch.autograd.gradcheck in float64",
                safety="advice",
            ),
        ),
        direction="none",
        tier=REMARK if meant else DATA,
    )


def _name_turned(path: str, line: str) -> Fault:
    """The fault of a straight-through estimator by hand that passes the negative of its gradient."""
    where, place = path or "(model)", f" ({line})" if line else ""
    return Fault(
        severity="error",
        cause=f"the straight-through estimator in {where}{place} passes the negative of the gradient: it "
        "takes off what has one and adds it without",
        sites=(where,),
        evidence=(Evidence("gradient over the usual one", -1.0, limit="1", site=where),),
        remedies=(Remedy("mend-backward", (where,), "p + (b - p).detach()", safety="advice"),),
        direction="none",
        tier=DATA,
    )


def _tell_deaf(last: bool) -> str:
    if last:
        return "the same gradient whatever arrives: right only while the loss is neither scaled nor averaged"
    return "the same gradient whatever arrives: it forgets to multiply by it, so the loss has no say"


def _count(argument: int) -> str:
    return ORDINALS[argument] if argument < len(ORDINALS) else f"{argument + 1}th"


def _spell(factor: float) -> str:
    if math.isnan(factor):
        return "a gradient of another direction than its output has"
    if factor == 0:
        return "no gradient, although its output depends on it"
    size = "" if f"{abs(factor):.2g}" == "1" else f"{abs(factor):.3g} times "
    return f"{size}the {'negative of the ' if factor < 0 else ''}gradient of its output"


def sick() -> Case:
    """A sine whose backward has the wrong sign."""
    return _case(factor=-1.0)


def healthy() -> Case:
    """A sine with its own gradient, and a straight-through rounding."""
    return _case(factor=1.0)


def _case(factor: float) -> Case:
    import torch
    from torch import Tensor, nn

    class Sine(torch.autograd.Function):
        """sin(x)."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            made: Tensor = factor * g * x.cos()
            return made

    class Through(torch.autograd.Function):
        """Rounds to quarters, and passes the gradient."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return (4 * x).round() / 4

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g

    sine: Any = Sine
    through: Any = Through

    class Net(nn.Module):
        """Two layers with a sine between them."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = sine.apply(self.first(x))
            out: Tensor = self.last(through.apply(h))
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Net(),
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="a sine by hand",
        )
