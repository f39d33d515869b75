"""Most units of a squashing activation sit in its flat region, where the slope is almost zero.

Why it harms

The gradient passes an activation multiplied by its slope, unit by unit:

    dL/dz = phi'(z) * dL/dh,   phi'(z) = 1 - tanh(z)^2 < 0.05 for |z| > 2.2

A saturated unit learns almost nothing, however wrong its output is. Saturation does not imply
vanishing: large weights may make up for the flat units, and the few others then carry the gradient.

An example

    layer = nn.Linear(64, 64)
    nn.init.normal_(layer.weight, std=10 * 64**-0.5)     # z has a deviation of 10
    h = torch.tanh(layer(x))                             # most units are at -1 or 1

How it is measured

The share of units and samples with |phi'| below 5 % of the function's largest slope, for each
squashing activation (tanh, sigmoid, hardtanh, hardsigmoid) on the depth axis. More than `limit` is
a warning, and an error if the gradient's ratio over the depth is beyond its limit as well. The
reason is read off the pre-activations: the gain of the weights, against the share of units that are
flat for every sample, which only a bias can cause.

Limits

    limit = 0.5     of the units are flat: healthy nets have up to 0.13 (measured), and above the
                    limit most units learn nothing
    PINNED = 0.25   of the units are flat for every sample: the biases are blamed, not the weights
    LARGE = 0.7     nats: weights of a gain above 2 are blamed. Gains that fit a squashing
                    activation are 1.4 (hardtanh) to 1.7 (tanh); a sigmoid of 4.7 saturates
    HUGE = 1        nats: weights of a gain above 2.7 are blamed even if biases pin the units

Remedies

Re-initialise the layers before them (retrain). Set their biases to zero (retrain). Insert a
normalisation (retrain). Swap the activation for one that does not saturate (retrain).

When it is wrong

Gates and attention are not on the depth axis and may be saturated for good reason: they are not
judged, nor is the activation that makes the output, also under a logarithm in a loss by hand.

References: Glorot and Bengio 2010; Gulcehre et al. 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _depth, _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import MEASURED, SLOW

NEEDS = ("static", "step")
EXPLAINS = ("GRF004", "INI001", "INI002", "DEP001", "ACT002", "OUT003", "OUT001")
PINNED = 0.25
LARGE, HUGE = 0.7, 1.0  # nats


def check(trace: Trace, *, limit: float = 0.5) -> Iterable[Fault]:
    """One fault naming the squashing activations on the depth axis whose units are mostly flat."""
    shares = _saturated_shares(trace)
    if not shares:
        raise NotApplicable("no squashing activation (tanh, sigmoid, ...) lies on the depth axis")
    flat = sorted((i for i, share in shares.items() if share > limit), key=lambda i: -shares[i])
    if not flat:
        return []
    worst, share = trace.sites[flat[0]], shares[flat[0]]
    reason, remedy = _find_reason(trace, min(flat, key=lambda i: trace.sites[i].order))
    reading = _depth.read(trace)
    harmed = reading is not None and bool(reading.severity)
    targets = _places.label(trace, flat)
    slope = math.sqrt(max(0.0, trace.value(flat[0], "slope_sq")))
    return [
        Fault(
            severity="error" if harmed else "warning",
            cause=f"{share:.0%} of the {worst.kind} units of {worst.label} sit in the flat region "
            f"because {reason}",
            sites=targets,
            evidence=(
                Evidence("saturated units", share, limit=f"< {limit:g}", site=worst.label),
                Evidence("rms slope there", slope, site=worst.label),
                Evidence("activations affected", len(flat), unit=f"of {len(shares)}"),
            ),
            remedies=(
                Remedy(remedy, targets, reason),
                Remedy(
                    "insert-normalisation",
                    targets,
                    "before the activation: keeps its input where the slope is",
                ),
                Remedy(
                    "swap-activation",
                    targets,
                    "ReLU and GELU do not saturate on both sides",
                    parameters={"to": "gelu"},
                ),
            ),
            direction=reading.direction if reading is not None and harmed else "vanishing",
            tier=MEASURED if harmed else SLOW,
            size=abs(reading.ratio) if reading is not None and harmed else share,
        )
    ]


def _saturated_shares(trace: Trace) -> dict[int, float]:
    """The share of flat units of every squashing activation on the depth axis, the output's left out."""
    places = trace.where("node", squashing=True, cut=True)
    shares = {i: trace.value(i, "saturated") for i in places if not trace.sites[i].facts.get("output")}
    return {i: share for i, share in shares.items() if math.isfinite(share)}


def _find_reason(trace: Trace, site: int) -> tuple[str, str]:
    """Why the units of an activation are flat, and the remedy that follows."""
    gain = _gain_before(trace, site)
    if trace.value(site, "pinned") > PINNED and not gain > HUGE:
        return "the biases hold them there whatever the input", "zero-bias"
    if gain > LARGE:
        return f"the weights before them are too large (gain {math.exp(gain):.3g})", "reinitialise"
    return "what they are given is too large", "reinitialise"


def _gain_before(trace: Trace, site: int) -> float:
    """Ln of the gain of the layer before a site of the depth axis; NaN if there is none."""
    axis = trace.depth()
    assert axis is not None
    before = axis.sites[axis.sites.index(site) + 1 :] if site in axis.sites else ()
    layers = (i for i in before if trace.sites[i].family == "layer")
    return next((trace.value(i, "weight_log") for i in layers), math.nan)


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
