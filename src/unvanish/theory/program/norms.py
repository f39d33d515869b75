"""Normalisations: what they subtract, what they divide by, and the effect on the gradient."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from unvanish.theory.program.signal import Pull, Signal
from unvanish.theory.program.steps import Step


def _normalise(
    step: Step,
    x: Signal,
    common: float,
    elements: float,
    coherent: float,
    *,
    uneven: float = 1.0,
    shared: float | None = None,
) -> tuple[list[Signal], Any]:
    """`common`: the share of the power that the mean removes; `elements`: the number of elements averaged;
    `coherent`: the share of the cosine between positions of a gradient that enters the mean; `uneven`:
    E[1/variance] times the variance, above 1 for few elements; `shared`: what is subtracted from the cosines.
    """
    gain, shift, eps = (
        float(step.facts.get(k, d)) for k, d in (("gain", 1.0), ("shift", 0.0), ("eps", 1e-5))
    )
    q = x.q
    variance = max(q * (1 - common), 0.0) + eps
    left = max(1 - common, 1e-12)
    less = common if shared is None else shared
    cosines = [(c - less) / left for c in (x.samples, x.positions, x.apart)]
    power = x.power * (1 - common) / variance * gain
    made = Signal(power, *cosines).plus(shift)

    def back(pulls: list[Pull]) -> list[Pull]:
        p = replace(pulls[0], winners=1)
        removed = min(0.95, 1 / elements + coherent * max(0.0, p.alike)) if common or elements > 1 else 0.0
        lost = min(0.98, removed + 1 / elements)
        alike = (p.alike - removed) / (1 - removed)
        factor = gain / variance * (1 - lost) * uneven
        return [replace(p.times(factor), alike=max(-1.0, alike))]

    return [made], back


def batch_norm(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Over samples and positions, per channel; with running statistics a constant factor."""
    x = given[0]
    if not step.facts.get("batch_statistics", True):
        factor = float(step.facts.get("gain", 1.0)) / float(step.facts.get("variance", 1.0))
        made = x.times(factor).plus(float(step.facts.get("shift", 0.0)))
        return [made], lambda pulls: [replace(pulls[0], winners=1).times(factor)]
    positions = math.prod(step.reads[0][2:]) if len(step.reads[0]) > 2 else 1
    n = batch * positions
    same = (positions - 1) * x.positions
    others = (batch - 1) * (x.samples + (positions - 1) * x.apart)
    common = min(1.0, (1 + same + others) / n)
    left = max(1 - common, 1e-12)
    alike = (positions - 1) * ((x.positions - common) / left) ** 2
    alike += (batch - 1) * ((x.samples - common) / left) ** 2
    independent = max(n / (1 + alike), 4.0)
    uneven = (independent - 1) / (independent - 3)
    return _normalise(step, x, common, n, (positions - 1) / n, uneven=uneven)


def layer_norm(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Over the units of a sample or token."""
    x = given[0]
    elements = float(step.facts.get("elements", step.reads[0][-1]))
    return _normalise(step, x, max(x.mean**2, 1 / elements), elements, 0.0, shared=x.mean**2)


def group_norm(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Over a group of channels and all positions."""
    x, shape = given[0], step.reads[0]
    positions = math.prod(shape[2:]) if len(shape) > 2 else 1
    channels = shape[1] / float(step.facts.get("groups", shape[1]))
    own = (1 + (positions - 1) * x.positions) / (channels * positions)
    common = min(1.0, own + (1 - 1 / channels) * x.mean**2)
    return _normalise(step, x, common, channels * positions, (positions - 1) / positions / channels)


def rms_norm(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Without a mean: only the gradient along the vector itself is lost."""
    x = given[0]
    gain, eps = float(step.facts.get("gain", 1.0)), float(step.facts.get("eps", 1e-6))
    variance, elements = x.q + eps, float(step.facts.get("elements", step.reads[0][-1]))
    factor = gain / variance * (1 - 1 / elements)
    return [x.times(gain / variance)], lambda pulls: [replace(pulls[0], winners=1).times(factor)]


NORMS: dict[str, Any] = {
    "batch_norm": batch_norm, "layer_norm": layer_norm, "group_norm": group_norm, "instance_norm": group_norm,
    "rms_norm": rms_norm,
}  # fmt: skip
