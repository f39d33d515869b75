"""The output's squashing function is saturated at wrong answers, and the loss does not undo its
slope.

Why it harms

A squared error behind a sigmoid keeps the sigmoid's slope in the gradient,

    dL/dz = 2 (p - y) p (1 - p) -> 0 as p -> 0 or 1

so a sample that is wrong with full confidence teaches nothing: at a logit of 20 the gradient is
2e-9, with binary cross-entropy it is 1.

How it is measured

The output activation's mean slope relative to its largest (softmax: mean p (1 - p)
summed over classes), `limit` (default 0.1), where the answers are wrong: mean |p - y| above
`residual` (default 0.2) of the output's range, under a squared or absolute error.

Remedies

Use binary cross-entropy or cross-entropy on the logits (retrain). Make the last layer's weights and
bias smaller (retrain).

When it is wrong

A converged model has saturated outputs that are right; its residual is small and nothing is
reported.

References: Solla et al. 1988; Glorot and Bengio 2010; Goodfellow et al. 2016, section
6.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace

NEEDS = ("static", "step")
EXPLAINS = ("INI002", "ACT001", "OUT003", "GRF004", "INI001", "PRC001")
ERRORS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


def check(trace: Trace, *, limit: float = 0.1, residual: float = 0.2) -> Iterable[Finding]:
    """One finding where a squashed output under a squared error is flat and wrong."""
    places = [
        i
        for i in trace.where("output")
        if trace.sites[i].kind in ERRORS and trace.sites[i].facts.get("activation")
    ]
    places = [i for i in places if math.isfinite(trace.sites[i].facts.get("output_slope", math.nan))]
    if not places:
        raise NotApplicable("no squared or absolute error reads a squashed output")
    wrong = [
        i
        for i in places
        if trace.sites[i].facts["output_slope"] < limit
        and trace.sites[i].facts.get("residual", 0.0) > residual
    ]
    if not wrong:
        return []
    facts = trace.sites[min(wrong, key=lambda i: trace.sites[i].facts["output_slope"])].facts
    slope, off, kind = facts["output_slope"], facts["residual"], facts["activation"]
    cause = (
        f"the {kind} output is saturated (slope {slope:.1e} of its largest) while its answers are off "
        f"by {off:.2f}"
    )
    evidence = (
        Evidence("slope of the output, relative", slope, "", f"> {limit:g}", facts.get("site", "")),
        Evidence("mean |p - y|", off, "of the range", f"< {residual:g}", "loss"),
    )
    site = (str(facts.get("site", "loss")),)
    loss = "cross-entropy" if kind == "softmax" else "binary cross-entropy with logits"
    remedies = (
        Remedy(
            "use-loss-with-logits", site, f"{loss} cancels the slope of the {kind}", "retrain", {"loss": loss}
        ),
        Remedy(
            "shrink-output-layer", site, "smaller weights and bias bring the output back where it has a slope"
        ),
    )
    severity: Severity = "error" if slope < limit / 5 else "warning"
    return [
        Finding(
            "OUT001",
            "saturated-output",
            severity,
            cause,
            site,
            evidence,
            remedies,
            "vanishing",
            9 - math.log(max(slope, 1e-12)),
        )
    ]


def sick() -> Case:
    """A sigmoid pushed to one by its bias, under a squared error, with half of the answers zero."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
        nn.init.constant_(net[2].bias, 18.0)
        batch = torch.randn(64, 16), (torch.arange(64) % 2).float()[:, None]
        return Case(net, batch, nn.MSELoss(), story="a sigmoid output at a bias of 18")


def healthy() -> Case:
    """The same saturated sigmoid, whose answers are right."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
        nn.init.constant_(net[2].bias, 18.0)
        y = torch.ones(64, 1)
        y[:2] = 0
        return Case(net, (torch.randn(64, 16), y), nn.MSELoss(), story="a saturated sigmoid that is right")
