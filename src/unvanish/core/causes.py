"""Which cause bears what a gradient loses or gains over the depth, read off its accounts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.core.accounts import Entry
from unvanish.core.facts import SiteFacts
from unvanish.core.limits import BEARS, CONTRACTING, NORMALISED, PINCHED, RELU, SATURATION, SHARE, STEEP
from unvanish.core.trace import Axis, Trace

BEARING = {  # cause: the accounts that bear it
    "ACT001": ("saturated",),
    "ACT002": ("slope",),
    "INI001": ("weights",),
    "INI002": ("weights",),
    "DEP002": ("residual",),
    "NRM001": ("normalisation",),
    "NRM002": ("residual", "normalisation"),
}


@dataclass(frozen=True)
class DepthProfile:
    """The gradient along one depth axis and its accounts; all numbers in nats, negative = vanishing on the
    way to the input.

    `layers`: sites of the layers' outputs, loss to input, the output layer left out; `log_ratio`: Theil-Sen
    slope of ln||d|| times (layers - 1); `endpoint`: ln of the last over the first ||d||; `limit`, `critical`:
    where a warning and an error begin; `noise`: what the width alone allows; one number for each account.
    """

    axis: Axis
    layers: tuple[int, ...]
    log_d: NDArray[np.float64]
    log_ratio: float
    endpoint: float
    noise: float
    limit: float
    critical: float
    entries: tuple[Entry, ...]
    weights: float = 0.0
    slope: float = 0.0
    saturated: float = 0.0
    normalisation: float = 0.0
    residual: float = 0.0
    resampling: float = 0.0
    rest: float = 0.0

    @property
    def steps(self) -> int:
        """How many layers the gradient crosses."""
        return max(1, len(self.layers) - 1)


@dataclass(frozen=True)
class Blame:
    """`cause`: the code of the rule that bears it, or ""; `culprits`: the sites that bear it, worst first;
    `pinched`: single layers stand out, so the endpoints are judged rather than the trend.
    """

    cause: str = ""
    culprits: tuple[int, ...] = ()
    pinched: bool = False


def blame(trace: Trace, profile: DepthProfile) -> Blame:
    """The cause of what a profile loses or gains."""
    size = abs(profile.log_ratio)
    if size <= profile.limit:
        return _blame_single_layers(profile)
    facts = [trace.sites[e.site].facts for e in profile.entries]
    if _is_normalised(facts) and size <= NORMALISED * profile.limit:
        return Blame()
    cause = _vanishing(profile) if profile.log_ratio < 0 else _exploding(profile, facts)
    return Blame(cause, _find_culprits(profile, cause))


def is_steep(entry: Entry) -> bool:
    """Whether a row's activation may be one that contracts; their mean must."""
    return entry.shares.get("slope", 0.0) < STEEP * CONTRACTING


def _blame_single_layers(profile: DepthProfile) -> Blame:
    """Layers whose weights alone stand far from the others', in the direction of the endpoints' ratio."""
    own = {e.site: e.shares["weights"] for e in profile.entries if "weights" in e.shares and not e.bearers}
    if abs(profile.endpoint) <= profile.limit or len(own) < 2:
        return Blame()
    middle, sign = float(np.median(list(own.values()))), math.copysign(1.0, profile.endpoint)
    far = {site: sign * (w - middle) for site, w in own.items()}
    odd = tuple(sorted((s for s, x in far.items() if x > PINCHED), key=lambda s: -far[s]))
    cause = "INI001" if profile.endpoint < 0 else "INI002"
    return Blame(cause, odd, pinched=True) if odd else Blame()


def _is_normalised(facts: list[SiteFacts]) -> bool:
    """Whether most layers have a normalisation: steps then follow the weights' size."""
    layers = sum(bool(f.get("row_layers")) for f in facts)
    return 2 * sum(bool(f.get("row_norm")) for f in facts) >= max(1, layers)


def _vanishing(profile: DepthProfile) -> str:
    weights = profile.weights + profile.normalisation
    if profile.saturated < min(profile.slope, profile.weights, SATURATION):
        return "ACT001"
    if _contracts(profile, weights):
        return "ACT002"
    if profile.residual < BEARS * profile.log_ratio or not _has_weights(profile):
        return ""
    return "INI001" if weights + profile.slope < SHARE * profile.log_ratio else ""


def _contracts(profile: DepthProfile, weights: float) -> bool:
    """Whether activations of a small slope, wherever they stand, bear half of it, and more than the weights.

    Each may cost what a ReLU does: weights are drawn to make up for that.
    """
    parts = [e.shares["slope"] for e in profile.entries if is_steep(e)]
    borne, free = sum(parts), RELU * len(parts)
    return borne < CONTRACTING * len(parts) and borne < BEARS * profile.log_ratio and borne + free <= weights


def _exploding(profile: DepthProfile, facts: list[SiteFacts]) -> str:
    batch = sum(bool(f.get("row_batch_norm")) and not f.get("row_residual") for f in facts)
    if 2 * batch >= profile.steps:
        return "NRM001"
    bare = sum(
        e.gain
        for e, f in zip(profile.entries, facts, strict=True)
        if f.get("row_residual") and not f.get("row_norm")
    )
    after = sum(bool(f.get("stream_norm")) for f in facts)
    if bare > BEARS * profile.log_ratio:
        return "NRM002" if 2 * after >= profile.steps else "DEP002"
    if profile.residual > BEARS * profile.log_ratio:
        return ""  # normalised branches add a fixed amount: the growth is that of a sum
    most = max(profile.weights + profile.slope + profile.saturated, profile.weights)
    if _has_weights(profile) and most > 0:
        return "INI002"
    return "NRM002" if after else ""


def _has_weights(profile: DepthProfile) -> bool:
    """Whether the weights of any layer on the axis are known to scale the gradient."""
    return any("weights" in e.shares for e in profile.entries)


def _find_culprits(profile: DepthProfile, cause: str) -> tuple[int, ...]:
    """The sites whose account bears the cause, worst first."""
    accounts = BEARING.get(cause, ())
    sign = math.copysign(1.0, profile.log_ratio)
    held = [e for e in profile.entries if any(a in e.shares for a in accounts)]
    if cause == "ACT002":
        held = [e for e in held if is_steep(e)]
    held.sort(key=lambda e: -sign * sum(e.shares.get(a, 0.0) for a in accounts))
    return tuple(i for e in held for a in accounts if a in e.shares for i in e.bearers.get(a, (e.site,)))
