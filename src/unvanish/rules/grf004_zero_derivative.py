"""An operation passes exactly no gradient: what comes before it is on the graph, but never learns.

Why it harms

Some functions are flat almost everywhere, or have become so:

    d round(x)/dx = d sign(x)/dx = 0
    clamp outside its range,   softmax or LayerNorm over one element,   a gate that is 0

Unlike a cut graph nothing is None: the gradients are there, and all of them are zero, which no
framework complains about.

How it is measured

Where a parameter's gradient is exactly zero, every node of the graph is looked at once more: the
operation at which a gradient that is not zero arrives and exactly none leaves is named.
Zero-initialised weights and branches are no fault, unless two factors of a product are zero
parameters, as when all weights are set to 0, or a zero gain follows zero weights: the gradient of
each is zero because of the other, for ever. Dead units are another rule's. An operation of the loss
is named where no parameter at all gets a gradient; a loss of exactly 0 is only noted, for it may be
at its minimum on this batch.

Remedies

A straight-through estimator for rounding and signs, tanh for signs (retrain). Remove or widen the
clamp, normalise over more than one element (advice).

When it is wrong

A part that this batch happens not to need, such as an expert that was not chosen by a hard gate.

References: Bengio et al. 2013 (straight-through); Hubara et al. 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _depth

NEEDS = ("step",)
EXPLAINS = ("INI001", "DEP001", "ACT001", "ACT002", "ATT002", "REC001", "NRM002")
ROUNDING = ("round", "sign", "floor", "ceil", "trunc", "heaviside", "clamp", "clip", "hardtanh")
STEPS = ("sign", "sgn", "heaviside")


def check(trace: Trace) -> Iterable[Finding]:
    """One finding naming the operations that stop the gradient."""
    if not trace.where("parameter", reachable=True):
        raise NotApplicable("the loss reaches no parameter")
    stops = trace.where("node", kills=True, kills_because="operation")
    if not stops:
        return _locked(trace) or _lost_in_the_loss(trace)
    stops.sort(key=lambda i: -int(trace.sites[i].facts.get("starved", 0)))
    site = trace.sites[stops[0]]
    starved = int(site.facts.get("starved", 0))
    total = len(trace.where("parameter", trainable=True))
    cause = (
        f"{site.kind}{_depth.within(site)} passes exactly no gradient: {starved} of {total} parameters "
        "before it never learn"
    )
    evidence = (
        Evidence("parameters with exactly no gradient", starved, f"of {total}", "0", site.label),
        Evidence("the operation", site.kind, "", "", site.label),
    )
    targets = _depth.labels(trace, stops)
    through = Remedy("straight-through", targets, "forward as it is, backward as the identity")
    softer = "an operation with a slope: no clamp, a softer gate, a norm over more elements"
    if site.facts.get("function"):
        softer = "its backward returns nothing or zeros: return what each input that needs a gradient is owed"
    remedies: tuple[Remedy, ...] = (
        (through,) if site.kind in ROUNDING else (Remedy("replace-operation", targets, softer, "advice"),)
    )
    if site.kind in STEPS:
        smooth = "a smooth step in its place passes a gradient"
        remedies += (Remedy("swap-activation", targets, smooth, parameters={"to": "tanh"}),)
    return [
        Finding(
            "GRF004",
            "zero-derivative",
            "error",
            cause,
            targets,
            evidence,
            remedies,
            "blocked",
            80.0 + starved / max(1, total),
        )
    ]


def _locked(trace: Trace) -> list[Finding]:
    """Where two factors are zero parameters, so that neither gets a gradient."""
    stops = trace.where("node", kills=True, kills_because="locked")
    if not stops:
        return []
    names = tuple(dict.fromkeys(n for i in stops for n in trace.sites[i].facts["locked"]))
    site = trace.sites[stops[0]]
    first, second = site.facts["locked"][:2]
    cause = (
        f"{first} and {second} are both zero, which makes {site.kind}{_depth.within(site)} flat in either: "
        "they never move"
    )
    evidence = (
        Evidence("zero parameters that hold each other", len(names), "", "0", site.label),
        Evidence("parameters that starve", int(site.facts.get("starved", 0)), "", "0", site.label),
    )
    why = "of two factors that are multiplied only one may start at zero"
    remedies = tuple(
        Remedy(cure, names[:12], why, "retrain", settings)
        for cure, settings in (("reinitialise", {}), ("add-noise", {"std": 0.01}))
    )
    return [
        Finding(
            "GRF004", "zero-derivative", "error", cause, _depth.labels(trace, stops), evidence, remedies,
            "blocked", 80.0,
        )
    ]  # fmt: skip


def _lost_in_the_loss(trace: Trace) -> list[Finding]:
    """Where the loss itself leaves no parameter a gradient."""
    stops = trace.where("node", kills=True, kills_because="loss")
    learning = trace.where("parameter", trainable=True, reachable=True)
    if not stops or any(trace.value(i, "gradient_log") != -math.inf for i in learning):
        return []
    stops.sort(key=lambda i: -int(trace.sites[i].facts.get("starved", 0)))
    kind, value = trace.sites[stops[0]].kind, float(trace.facts.get("loss", math.nan))
    severity: Severity = "note" if value == 0 else "error"
    cause = f"{kind} in the loss passes exactly no gradient: no parameter learns from this batch"
    why = "a loss with a slope: no rounding, comparison or clamp between it and the output"
    if value == 0:
        cause += ", for its loss is 0"
        why = "it may be at its minimum on this batch, be clamped there, or be multiplied by zero"
    evidence = (
        Evidence("parameters with exactly no gradient", len(learning), f"of {len(learning)}", "0"),
        Evidence("the operation", kind, "", "", "loss"),
        Evidence("loss", value),
    )
    remedy = Remedy("replace-operation", ("loss",), why, "advice")
    return [
        Finding("GRF004", "zero-derivative", severity, cause, ("loss",), evidence, (remedy,), "blocked", 81.0)
    ]


def sick() -> Case:
    """A rounding between encoder and head."""
    import torch
    from torch import Tensor, nn

    class Quantised(nn.Module):
        """head(round(4 encoder(x)))."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(torch.round(4 * self.encoder(x)))
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Quantised(),
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="rounded features",
        )


def healthy() -> Case:
    """A straight-through rounding, and a branch that starts at zero."""
    import torch
    from torch import Tensor, nn

    class Through(nn.Module):
        """head(h + (round(h) - h).detach() + alpha * extra(h)), alpha = 0."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.extra, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)
            self.alpha = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            h = 4 * self.encoder(x)
            h = h + (torch.round(h) - h).detach()
            out: Tensor = self.head(h + self.alpha * self.extra(h))
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Through(),
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="straight through",
        )
