"""The samples become indistinguishable on the way forward: no optimizer can tell them apart any
more.

Why it harms

In a deep stack every layer pulls the samples together or apart. Below the critical point, or where
biases outweigh the signal, the cosine between two samples tends to one,

    c_(l+1) = C(c_l) -> 1,   spread = ||h - mean over samples|| / ||h|| -> 0

and then outputs are equal for all inputs. A vanishing gradient can be rescaled; lost information
cannot.

How it is measured

The mean cosine between the samples' hidden activations at the end of the depth axis, `alike`
(default 0.9999), or their relative spread, `limit` (default 1e-3), is a warning, a tenth of the
remaining difference an error, while the inputs themselves differ (spread above 0.1). One sample is
not judged, nor are outputs after a softmax. Under watch the first layer's results stand for the
inputs.

Remedies

Re-initialise at the critical point (retrain). Add skip connections (retrain). Insert a
normalisation over the batch (retrain). Set large biases to zero (retrain).

When it is wrong

A batch of equal or nearly equal samples, and models that are meant to be invariant to what differs.
A run under watch that has converged is left alone.

References: Poole et al. 2016; Schoenholz et al. 2017; Dong et al. 2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _depth, _history

NEEDS = ("static", "step")
LIVE = True
EXPLAINS = ("ATT002", "ACT003")
HIDDEN = ("layer", "activation", "norm", "add")


def check(trace: Trace, *, limit: float = 1e-3, alike: float = 0.9999) -> Iterable[Finding]:
    """One finding naming where the samples lost their differences."""
    path = _hidden(trace)
    live, axis = bool(trace.facts.get("live")), trace.depth()
    first = axis.sites if live and axis else trace.where("input", floating=True)  # inputs are not watched
    known = [s for i in first if math.isfinite(s := trace.value(i, "spread"))]
    if not known:
        raise NotApplicable("the batch has one sample, or no float input to compare the samples by")
    if max(known) < 0.1:
        raise NotApplicable("the samples of this batch are nearly equal to begin with")
    if len(path) < 2:
        raise NotApplicable("no hidden activations lie on the depth axis")
    same = [trace.value(i, "spread") < limit or trace.value(i, "cosine") > alike for i in path]
    if not all(same[-2:]) or _history.converged(trace):
        return []
    lost = next(k for k in range(len(path)) if all(same[k:]))
    place, last = path[lost], path[-1]
    spread = trace.value(last, "spread")
    small = f"less than {limit:g}" if live and spread < limit else f"{spread:.1e}"  # a look is not exact
    cause = f"from {trace.sites[place].label} on all samples look alike: they differ by {small} of their size"
    evidence = (
        Evidence("relative spread between samples", spread, "", f"> {limit:g}", trace.sites[last].label),
        Evidence(
            "cosine between samples", trace.value(last, "cosine"), "", f"< {alike:g}", trace.sites[last].label
        ),
        Evidence("spread of the first activations" if live else "spread of the inputs", max(known)),
    )
    targets = _depth.labels(trace, path[lost:])
    remedies = (
        Remedy("reinitialise", targets, "critical weights and small biases keep the samples apart"),
        Remedy("add-skips", targets, "an identity path carries the differences past the layers"),
        Remedy(
            "insert-normalisation",
            targets,
            "batch statistics blow the differences up again",
            parameters={"kind": "batch"},
        ),
    )
    close = 1 - trace.value(last, "cosine") < (1 - alike) / 10 or spread < limit / 10
    severity: Severity = "error" if close else "warning"
    weight = math.log(limit / max(spread, 1e-300)) if spread > 0 else 50.0
    return [
        Finding(
            "DEP001",
            "information-collapse",
            severity,
            cause,
            targets,
            evidence,
            remedies,
            "vanishing",
            8.0 + min(weight, 8.0),
        )
    ]


def _hidden(trace: Trace) -> list[int]:
    """Hidden activations on the depth axis, input to loss, with at least four features."""
    axis = trace.depth()
    if axis is None:
        return []
    found = []
    for i in reversed(axis.sites):
        facts = trace.sites[i].facts
        wide = math.prod(facts.get("shape", (1, 0))[1:]) >= 4
        if (
            trace.sites[i].family in HIDDEN
            and wide
            and not facts.get("output")
            and math.isfinite(trace.value(i, "spread"))
        ):
            found.append(i)
    return found[:-1] if found and trace.sites[found[-1]].family == "layer" else found


def sick() -> Case:
    """Biases ten thousand times larger than the signal."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[Any] = []
        for _ in range(8):
            layers += [nn.Linear(64, 64), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight)
            nn.init.normal_(layers[-2].bias, std=1e4)
        head = nn.Linear(64, 10)
        nn.init.normal_(head.weight, std=1e-6)
        batch = torch.randn(32, 64), torch.randint(0, 10, (32,))
        return Case(
            nn.Sequential(*layers, head), batch, nn.CrossEntropyLoss(), story="biases drown the signal"
        )


def healthy() -> Case:
    """A deep ReLU net at its critical point: cosine .9 and more, but the differences are still there."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[Any] = []
        for _ in range(25):
            layers += [nn.Linear(128, 128), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight)
        batch = torch.randn(32, 128), torch.randint(0, 10, (32,))
        return Case(
            nn.Sequential(*layers, nn.Linear(128, 10)), batch, nn.CrossEntropyLoss(), story="25 He layers"
        )
