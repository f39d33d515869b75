"""Trainable parameters that the optimizer does not hold: they get a gradient and never take a step.

Why it harms

An optimizer knows only the parameters it was given, when it was given them. Parts that were
added, replaced or re-created afterwards, and groups that were forgotten, get their gradients,
which cost as much as ever, and stay as they are.

An example

    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)     # the backbone never moves

How it is measured

By identity: each trainable parameter against the optimizer's param_groups. Without an optimizer
there is nothing to judge. If the optimizer holds tensors that are no parameters of this model
and have the shapes of those it lacks, these were made anew after it: by a copy, a replaced
layer, or `load_state_dict(assign=True)`. In a watched training: the parameters that get a
gradient at a look, that no optimizer holds, and that nothing has moved in the last steps.

Limits

None: the optimizer holds a parameter or not.

Remedies

Give the optimizer all trainable parameters, or add a group (retrain). Freeze what shall not
learn (advice).

When it is wrong

Several optimizers, each for its part: check the parts one by one, or freeze the others
meanwhile.

References: The PyTorch documentation, torch.optim, per-parameter options.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import STEPS

NEEDS = ("static",)
LIVE = True
AT_ONCE = True


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming what no optimizer holds."""
    if trace.facts.get("live"):
        return _judge_holding(trace)
    trainable = trace.where("parameter", trainable=True)
    if not trainable or all(trace.sites[i].facts.get("optimised") is None for i in trainable):
        raise NotApplicable("no optimizer was given; pass optimizer=")
    left = [i for i in trainable if trace.sites[i].facts.get("optimised") is False]
    if not left:
        return []
    share = _places.count_numbers(trace, left) / max(1, _places.count_numbers(trace, trainable))
    names = [trace.sites[i].label for i in left]
    return [_report(names, len(trainable), share, int(trace.facts.get("stale", 0)))]


def _report(left: list[str], trainable: int, share: float, stale: int) -> Fault:
    sites = tuple(left)[: _places.MOST]
    return Fault(
        severity="error",
        cause=_tell(len(left), trainable, share, stale),
        sites=sites,
        evidence=(
            Evidence("parameters not held", len(left), unit=f"of {trainable}", limit="0"),
            Evidence("share of the numbers", share),
        ),
        remedies=(
            Remedy(
                "add-to-optimizer",
                sites,
                "give the optimizer all trainable parameters, after the model is complete",
            ),
            Remedy(
                "freeze",
                sites,
                "if they shall not learn, say so and save their gradients",
                safety="advice",
            ),
        ),
        direction="blocked",
        tier=STEPS,
        size=share,
    )


def _judge_holding(trace: Trace) -> list[Fault]:
    """One fault naming what gets a gradient and no watched optimizer holds; OPT006 names stale tensors."""
    if "holding" not in trace.facts:
        raise NotApplicable("no optimizer is watched")
    holding = trace.facts["holding"]
    left = [name for name in holding["left"] if name not in holding["stale"]]
    return [_report(left, holding["trainable"], holding["share"], 0)] if left else []


def _tell(left: int, trainable: int, share: float, stale: int) -> str:
    cause = (
        f"the optimizer does not hold {left} of {trainable} trainable parameters, {share:.0%} of the numbers"
    )
    if left == trainable:
        cause = f"the optimizer holds none of the {trainable} trainable parameters, so nothing is trained"
    if stale:
        cause += (
            f"; it holds {stale} tensors of their shapes that are not the model's, as if these were made "
            "anew after it"
        )
    return cause


def sick() -> Case:
    """An optimizer over the head only."""
    return _case(whole=False)


def healthy() -> Case:
    """A frozen part that the optimizer does not hold, and two groups for the rest."""
    return _case(whole=True)


def _case(whole: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
        groups = [{"params": net[4].parameters()}]
        if whole:
            net[0].requires_grad_(False)
            groups.append({"params": net[2].parameters()})
        optimizer = torch.optim.SGD(groups, lr=0.1)
        batch = torch.randn(32, 16), torch.randint(0, 4, (32,))
        return Case(
            net, batch, nn.CrossEntropyLoss(), {"optimizer": optimizer}, story="an optimizer and its groups"
        )
