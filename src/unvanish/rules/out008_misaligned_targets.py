"""Output and targets are flattened from another order of their axes: rows meet the answers of others.

Why it harms

A loss over (batch, time, classes) is often taken over one long row of steps. If the labels lie as
(time, batch), the flattened rows have the same length and another order,

    row k of the output is sample k // T at step k % T,  of the labels step k // B of sample k % B

so nearly every step is taught the label of another one. Nothing raises, and the loss stays about
where guessing is.

An example

    loss = cross_entropy(out.view(-1, classes), y.view(-1))    # out (B, T, classes), y (T, B)
    loss = cross_entropy(out.view(-1, classes), y.T.reshape(-1))

How it is measured

What one of torch's losses reads is followed through its views to the shape that it had, and its
targets to the tensor of the batch that they are, in the same memory: both have the same axes, in
another order. Targets that were transposed before are another tensor, and not judged.

Limits

None: the axes stand in the same order or not. Axes of equal length cannot be told apart.

Remedies

Transpose one of both before it is flattened (retrain, advice).

When it is wrong

Never where the axes mean what they do elsewhere in the batch.

References: the documentation of torch.Tensor.view.
"""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.loss_facts import SwapFacts
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault, blame_loss
from unvanish.rules._tiers import NO_STEP

NEEDS = ("static",)


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming the loss that reads both."""
    if not trace.where("output"):
        raise NotApplicable("no loss was seen")
    misaligned = trace.facts.get("misaligned", [])
    return [_report(misaligned[0])] if misaligned else []


def _report(first: SwapFacts) -> Fault:
    output, targets = first["shapes"]
    line = f" at {first['line']}" if first["line"] else ""
    return blame_loss(
        f"the loss{line} flattens an output over {output} and targets of {targets}: their rows do not stand "
        "in the same order, so most meet the answer of another",
        Evidence("axes of the output, and of the targets", f"{output} and {targets}", site="loss"),
        Remedy("align-targets", ("loss",), "transpose one of both before it is flattened", "advice"),
        NO_STEP,
    )


def sick() -> Case:
    """A tagger, batch first, whose labels come time first."""
    return _case(turned=False)


def healthy() -> Case:
    """The same labels, transposed."""
    return _case(turned=True)


def _case(turned: bool) -> Case:
    import torch
    from torch import Tensor, nn

    def loss(out: Tensor, y: Tensor) -> Tensor:
        rows = y.T.reshape(-1) if turned else y.reshape(-1)
        return nn.functional.cross_entropy(out.reshape(-1, 5), rows)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 5))
        batch = torch.randn(12, 9, 8), torch.randint(0, 5, (9, 12))
        return Case(net, batch, loss, story="tagged steps")
