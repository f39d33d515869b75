"""The logits are so large that the loss is saturated: every answer is certain, and many are wrong.

Why it harms

With logits of size s the softmax is one-hot, the loss of a wrong sample is about s, and its
gradient

    dL/dz = p - y

is the same for all wrong samples however wrong they are, and zero for all right ones. The first
steps only shrink the last layer; in float16 the exponentials overflow.

How it is measured

The largest |logit| that cross-entropy or binary cross-entropy reads, `limit` (default 30), with a
typical range across classes above a third of it, while the error remains: mean |p - y| above
`residual` (default 0.05).

Remedies

Start the last layer small: zero, or a gain of 0.01 to 1 (retrain). A normalisation before the head
(retrain). A z-loss on the logits (advice).

When it is wrong

A converged model has large logits that are right; its residual is small and nothing is reported.

References: Goyal et al. 2017 (zero-init heads); Chowdhery et al. 2022 (z-loss); Guo et
al. 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace

NEEDS = ("static", "step")
EXPLAINS = (
    "NUM001",
    "PRC002",
)
LOGITS = ("cross_entropy", "binary_cross_entropy_with_logits")


def check(trace: Trace, *, limit: float = 30.0, residual: float = 0.05) -> Iterable[Finding]:
    """One finding where the logits are huge and the answers wrong."""
    places = [i for i in trace.where("output") if trace.sites[i].kind in LOGITS]
    if not places:
        raise NotApplicable("no loss that reads logits was seen")
    huge = [i for i in places if _saturated(trace, i, limit, residual)]
    if not huge:
        return []
    facts = max((trace.sites[i].facts for i in huge), key=lambda f: float(f["logit_max"]))
    where = _head(trace)
    cause = (
        f"the logits reach {facts['logit_max']:.0f}, so every answer is certain, and "
        f"{facts.get('residual', math.nan):.0%} of that is wrong"
    )
    evidence = (
        Evidence("largest |logit|", float(facts["logit_max"]), "", f"< {limit:g}", where),
        Evidence(
            "typical range of the logits",
            float(facts.get("logit_top", math.nan)),
            "",
            f"< {limit / 3:g}",
            where,
        ),
        Evidence("mean |p - y|", float(facts.get("residual", math.nan)), "", f"< {residual:g}", "loss"),
    )
    remedies = (
        Remedy(
            "shrink-output-layer",
            (where,),
            "a last layer of small gain starts undecided",
            parameters={"gain": 0.1},
        ),
        Remedy("insert-normalisation", (where,), "a normalisation in front of the head bounds what it reads"),
        Remedy("z-loss", (where,), "a penalty on log Z keeps the logits small", "advice", {"weight": 1e-4}),
    )
    severity: Severity = "error" if facts["logit_max"] > 3 * limit else "warning"
    return [
        Finding(
            "OUT003",
            "saturated-logits",
            severity,
            cause,
            (where,),
            evidence,
            remedies,
            "none",
            4 + math.log(float(facts["logit_max"])),
        )
    ]


def _saturated(trace: Trace, site: int, limit: float, residual: float) -> bool:
    facts = trace.sites[site].facts
    largest, typical = facts.get("logit_max", 0.0), facts.get("logit_top", 0.0)
    return bool(
        math.isfinite(largest)
        and largest > limit
        and typical > limit / 3
        and facts.get("residual", 0.0) > residual
    )


def _head(trace: Trace) -> str:
    """The last layer before the loss."""
    layers = [i for i in trace.where("node") if trace.sites[i].family == "layer"]
    return trace.sites[max(layers, key=lambda i: trace.sites[i].order)].label if layers else "loss"


def sick() -> Case:
    """A last layer two thousand times too large."""
    return _case(2000.0, right=False)


def healthy() -> Case:
    """Logits as large, every one of them right."""
    return _case(2000.0, right=True)


def _case(factor: float, right: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
        net[2].weight.data *= factor
        x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))
        with torch.no_grad():
            y = net(x).argmax(-1) if right else y
        return Case(net, (x, y), nn.CrossEntropyLoss(), story="a huge last layer")
