"""The loss has no least value: it falls without end, and faster than what it reads grows.

Why it harms

What should be near is driven away, the further the faster. Of a Gaussian likelihood z the loss is

    -log p(z) = z^2 / 2 + ...,   and without the minus  -z^2 / 2

which falls for ever as z leaves the origin: the loss looks better and better, until it overflows.
So does a distance that is to grow and that no margin holds, and a divergence that is subtracted.

An example

    loss = flow.log_prob(x).mean()                       # of a likelihood the minus is missing
    loss = rebuilt - beta * divergence                   # of a variational bound the plus
    loss = (d_near ** 2 - d_far ** 2).mean()             # of a triplet the margin

How it is measured

From the loss through sums, means and factors alone: a square or an exponential that enters it with
a minus, with the same weight in all samples (rewards weigh each by its own). Then what made it is
moved down its gradient by 1, 16, 64 and 256 of its size, one forward each. The loss fell each
time, with a power of the way above STEEP throughout.

Limits

    STEEP = 1.5      a critic's or a policy's loss falls with the power 1, a square with 2; a
                     likelihood whose variance shrinks, with the logarithm

Remedies

The other sign, or a margin: max(0, margin + near - far) (retrain).

When it is wrong

Where something outside of the loss holds its variables, as weights that are normalised after each
step. What a sigmoid, a tanh or a norm bounds is not judged, and neither is a watched step.

References: Kingma and Welling 2014 (the bound); Dinh et al. 2017 (flows); Schroff et al. 2015 (the
margin).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.loss_facts import BottomFacts
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault, blame_loss
from unvanish.rules._tiers import NO_STEP

NEEDS = ("static",)
EXPLAINS = ("OUT006", "OUT003", "INI001", "INI002", "ACT003", "DEP001", "LOS001")
STEEP = 1.5


def check(trace: Trace) -> Iterable[Fault]:
    """One fault if the loss falls without end."""
    if not trace.where("output"):
        raise NotApplicable("no loss was seen")
    bottom = trace.facts.get("bottom")
    turned = any(
        facts["given"] for facts in trace.facts.get("ascents", [])
    )  # LOS002 says the same, and where
    return [] if bottom is None or turned or not bottom["power"] > STEEP else [_report(bottom)]


def _report(bottom: BottomFacts) -> Fault:
    place = f" at {bottom['source']}" if bottom["source"] else ""
    shape = "an exponential" if bottom["kind"] == "exp" else "a square"
    return blame_loss(
        f"the loss has no least value: {shape}{place} enters it with a minus, so it falls for ever, and the "
        "faster the further that goes",
        Evidence("power with which the loss falls", bottom["power"], limit=f"< {STEEP:g}", site="loss"),
        Remedy("flip-sign", (), "the other sign (-log p, + divergence), or a margin that ends it", "advice"),
        NO_STEP,
    )


def sick() -> Case:
    """A triplet of squared distances without a margin."""
    return _case(margin=False)


def healthy() -> Case:
    """The same with one."""
    return _case(margin=True)


def _case(margin: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))

        def loss(z: Any, margin_of: Any) -> Any:
            one, near, far = z.chunk(3)
            gap = (one - near).pow(2).sum(1) - (one - far).pow(2).sum(1)
            return (gap + margin_of).clamp(min=0).mean() if margin else gap.mean()

        return Case(net, (torch.randn(48, 16), torch.ones(16)), loss, story="a triplet of squared distances")
