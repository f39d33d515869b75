"""Most units of a squashing activation sit in its flat region, where the slope is almost zero.

Why it harms

The gradient passes an activation multiplied by its slope, unit by unit:

    dL/dz = phi'(z) * dL/dh,   phi'(z) = 1 - tanh(z)^2 < 0.05 for |z| > 2.2

A saturated unit learns nothing, and what it says no longer depends on how far its input is off.
Saturation does not imply vanishing: large weights may make up for the flat units, which then pass
their gradient to few others.

How it is measured

The share of units and samples with |phi'| below 5 % of the function's largest slope, for each
squashing activation (tanh, sigmoid, hardtanh, hardsigmoid) that lies on the depth axis; `limit`
(default 0.5) is a warning, and an error where the gradient's ratio is beyond its limit as well. The
reason is told from the pre-activations: the weights' gain against the share of units that are flat
for every sample, which only a bias can cause.

Remedies

Re-initialise the layers before them (retrain). Set their biases to zero (retrain). Insert a
normalisation (retrain). Swap the activation for one that does not saturate (retrain).

When it is wrong

Gates and attention lie beside the depth axis and may be saturated for good reason: they are not
judged, nor is the activation that makes the output.

References: Glorot and Bengio 2010; Gulcehre et al. 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core import depth
from unvanish.core.diagnosis import Case, Direction, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _depth

NEEDS = ("static", "step")
EXPLAINS = ("GRF004", "INI001", "INI002", "DEP001", "ACT002", "OUT003", "OUT001")


def check(trace: Trace, *, limit: float = 0.5) -> Iterable[Finding]:
    """One finding naming the squashing activations on the depth axis whose units are mostly flat."""
    places = [
        i for i in trace.where("node", squashing=True, cut=True) if not trace.sites[i].facts.get("output")
    ]
    places = [i for i in places if math.isfinite(trace.value(i, "saturated"))]
    if not places:
        raise NotApplicable("no squashing activation (tanh, sigmoid, ...) lies on the depth axis")
    flat = sorted(
        (i for i in places if trace.value(i, "saturated") > limit), key=lambda i: -trace.value(i, "saturated")
    )
    if not flat:
        return []
    worst, share = flat[0], trace.value(flat[0], "saturated")
    first = min(flat, key=lambda i: trace.sites[i].order)
    reason, remedy = _reason(trace, first)
    reading = depth.read(trace)
    harmed = reading is not None and bool(reading.severity)
    kind = trace.sites[worst].kind
    cause = (
        f"{share:.0%} of the {kind} units of {trace.sites[worst].label} sit in the flat region "
        f"because {reason}"
    )
    evidence = (
        Evidence("saturated units", share, "", f"< {limit:g}", trace.sites[worst].label),
        Evidence(
            "rms slope there",
            math.sqrt(max(0.0, trace.value(worst, "slope_sq"))),
            "",
            "",
            trace.sites[worst].label,
        ),
        Evidence("activations affected", len(flat), f"of {len(places)}"),
    )
    targets = _depth.labels(trace, flat)
    remedies = (
        Remedy(remedy, targets, f"{reason}"),
        Remedy("insert-normalisation", targets, "before the activation: keeps its input where the slope is"),
        Remedy(
            "swap-activation",
            targets,
            "ReLU and GELU do not saturate on both sides",
            parameters={"to": "gelu"},
        ),
    )
    weight = abs(reading.ratio) if reading is not None and harmed else 3 + share
    severity: Severity = "error" if harmed else "warning"
    direction: Direction = reading.direction if reading is not None and harmed else "vanishing"
    return [
        Finding(
            "ACT001", "saturated-activation", severity, cause, targets, evidence, remedies, direction, weight
        )
    ]


def _reason(trace: Trace, site: int) -> tuple[str, str]:
    """Why the units of an activation are flat, and the remedy that follows."""
    axis = trace.depth()
    assert axis is not None
    after = axis.sites[axis.sites.index(site) + 1 :] if site in axis.sites else ()
    layer = next((i for i in after if trace.sites[i].family == "layer"), None)
    gain = trace.value(layer, "weight_log") if layer is not None else math.nan
    pinned = trace.value(site, "pinned")
    if pinned > 0.25 and not gain > 1.0:
        return "the biases hold them there whatever the input", "zero-bias"
    if gain > 0.7:
        return f"the weights before them are too large (gain {math.exp(gain):.3g})", "reinitialise"
    if pinned > 0.25:
        return "the biases hold them there whatever the input", "zero-bias"
    return "what they are given is too large", "reinitialise"


def sick() -> Case:
    """A tanh net whose weights are ten times too large."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[Any] = []
        for _ in range(6):
            layers += [nn.Linear(64, 64), nn.Tanh()]
            nn.init.normal_(layers[-2].weight, std=10 * 64**-0.5)
        batch = torch.randn(32, 64), torch.randint(0, 10, (32,))
        return Case(
            nn.Sequential(*layers, nn.Linear(64, 10)),
            batch,
            nn.CrossEntropyLoss(),
            story="tanh under large weights",
        )


def healthy() -> Case:
    """Half-open gates and a saturated gate beside the stream; tanh at its critical point on it."""
    import torch
    from torch import Tensor, nn

    class Gate(nn.Module):
        """A stream whose gate is shut for most units, on purpose."""

        def __init__(self) -> None:
            super().__init__()
            self.value, self.gate = nn.Linear(64, 64), nn.Linear(64, 64)
            nn.init.constant_(self.gate.bias, -8.0)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(*[Gate() for _ in range(8)], nn.Linear(64, 10))
        return Case(
            net,
            (torch.randn(32, 64), torch.randint(0, 10, (32,))),
            nn.CrossEntropyLoss(),
            story="highway gates, shut",
        )
