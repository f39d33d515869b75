"""The samples become indistinguishable on the way forward: no optimizer can tell them apart any
more.

Why it harms

In a deep stack every layer pulls the samples together or apart. Below the critical point, or if
biases outweigh the signal, the cosine between two samples tends to one,

    c_(l+1) = C(c_l) -> 1,   spread = ||h - mean over samples|| / ||h|| -> 0

and then outputs are equal for all inputs. A vanishing gradient can be rescaled; lost information
cannot.

An example

    layer = nn.Linear(64, 64)
    nn.init.normal_(layer.bias, std=1e4)     # h is the bias; what x says is in its fifth digit
    h = torch.relu(layer(x))

How it is measured

At the end of the depth axis, the relative spread of the hidden activations over the samples, or
their mean cosine: a spread below `limit` or a cosine above `alike` is a warning, a tenth of what is
left of the difference an error, if the inputs themselves differ. One sample is not judged, nor are
outputs after a softmax. In a watched run the first layer's results stand for the inputs. Of a graph
net that answers for each node: what the means over neighbours that lie on the depth axis, so
without a skip around them, leave of the differences between nodes.

Limits

    limit = 0.001    of their size is what the samples differ by: healthy nets have 0.03 or more
                     (measured)
    alike = 0.9999   mean cosine: a He net reaches 0.98 in its twentieth layer, and trains; a
                     sigmoid net of 50 layers reaches 1.000, and no optimizer rescues it (both
                     measured)
    CLOSER = 10      times closer is an error
    INPUTS = 0.1     is the least spread of the inputs: below it they are alike to begin with
    FEATURES = 4     at least, for a cosine to say something
    MOST = 8         nats by which a collapse may outweigh others of its tier: an order, no limit

Remedies

Re-initialise at the critical point (retrain). Add skip connections (retrain). Insert a
normalisation over the batch (retrain). Set large biases to zero (retrain).

When it is wrong

A batch of equal or nearly equal samples, and models that are meant to be invariant to what differs.
A watched run that has converged is not judged.

References: Poole et al. 2016; Schoenholz et al. 2017; Li et al. 2018 (graph nets); Dong et al.
2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _converged, _places, _smoothed
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import DATA

NEEDS = ("static", "step")
LIVE = True
EXPLAINS = ("ATT002", "ACT003")
HIDDEN = ("layer", "activation", "norm", "add")
INPUTS = 0.1
CLOSER = 10
FEATURES = 4
MOST = 8.0  # nats


def check(trace: Trace, *, limit: float = 1e-3, alike: float = 0.9999) -> Iterable[Fault]:
    """One fault naming where the samples lost their differences."""
    if means := _smoothed.find(trace):
        return [_report_smoothed(trace, means)]
    path, live = _hidden_activations(trace), bool(trace.facts.get("live"))
    first_spread = _first_spread(trace, live)
    if len(path) < 2:
        raise NotApplicable("no hidden activations lie on the depth axis")
    same = [trace.value(i, "spread") < limit or trace.value(i, "cosine") > alike for i in path]
    if not all(same[-2:]) or _converged.has_converged(trace):
        return []
    lost = path[next(k for k in range(len(path)) if all(same[k:])) :]
    last, where = lost[-1], trace.sites[lost[-1]].label
    spread, cosine = trace.value(last, "spread"), trace.value(last, "cosine")
    closer = 1 - cosine < (1 - alike) / CLOSER or spread < limit / CLOSER
    exact = not live or spread >= limit  # a look reads a few samples: their spread is not exact
    difference = f"{spread:.1e}" if exact else f"less than {limit:g}"
    targets = _places.label(trace, lost)
    return [
        Fault(
            severity="error" if closer else "warning",
            cause=f"from {trace.sites[lost[0]].label} on all samples look alike: they differ by "
            f"{difference} of their size",
            sites=targets,
            evidence=(
                Evidence("relative spread between samples", spread, limit=f"> {limit:g}", site=where),
                Evidence("cosine between samples", cosine, limit=f"< {alike:g}", site=where),
                Evidence("spread of the first activations" if live else "spread of the inputs", first_spread),
            ),
            remedies=(
                Remedy("reinitialise", targets, "critical weights and small biases keep the samples apart"),
                Remedy("add-skips", targets, "an identity path carries the differences past the layers"),
                Remedy(
                    "insert-normalisation",
                    targets,
                    "batch statistics blow the differences up again",
                    parameters={"kind": "batch"},
                ),
            ),
            direction="vanishing",
            tier=DATA,
            size=min(math.log(limit / spread), MOST) if spread > 0 else MOST,
        )
    ]


def _report_smoothed(trace: Trace, means: list[int]) -> Fault:
    """The fault of nodes that means over their neighbours make alike."""
    left, targets = math.exp(_smoothed.measure(trace, means)), _places.label(trace, means)
    return Fault(
        severity="error",
        cause=f"{len(means)} means over neighbours in a row ({targets[0]} and on), with no way around them, "
        f"leave {left:.1e} of what tells the nodes apart: they become alike, however the weights are drawn",
        sites=targets,
        evidence=(
            Evidence(
                "differences between nodes that are left",
                left,
                limit=f"> {math.exp(-_smoothed.SMOOTHED):.2g}",
            ),
            Evidence("means over neighbours", len(means)),
        ),
        remedies=(
            Remedy("fewer-layers", targets, "two to four such layers are usual", "advice"),
            Remedy(
                "keep-own-features",
                targets,
                "h + layer(A h), or a part of the first h in each layer",
                "advice",
            ),
        ),
        direction="vanishing",
        tier=DATA,
        size=MOST,
    )


def _first_spread(trace: Trace, live: bool) -> float:
    """The spread of the samples at the inputs; NotApplicable if they hardly differ there."""
    axis = trace.depth()
    first = axis.sites if live and axis else trace.where("input", floating=True)  # inputs are not watched
    known = [s for i in first if math.isfinite(s := trace.value(i, "spread"))]
    if not known:
        raise NotApplicable("the batch has one sample, or no float input to compare the samples by")
    if max(known) < INPUTS:
        raise NotApplicable("the samples of this batch are nearly equal to begin with")
    return max(known)


def _hidden_activations(trace: Trace) -> list[int]:
    """The hidden activations on the depth axis, input to loss; a last layer makes the output."""
    axis = trace.depth()
    found = [i for i in reversed(axis.sites) if _is_hidden(trace, i)] if axis else []
    return found[:-1] if found and trace.sites[found[-1]].family == "layer" else found


def _is_hidden(trace: Trace, site: int) -> bool:
    facts = trace.sites[site].facts
    return bool(
        trace.sites[site].family in HIDDEN
        and math.prod(facts.get("shape", (1, 0))[1:]) >= FEATURES
        and not facts.get("output")
        and math.isfinite(trace.value(site, "spread"))
    )


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
