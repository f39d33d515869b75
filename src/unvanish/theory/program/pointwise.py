"""Operations that act on each number alone: activations, sums and products, and views."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from unvanish.theory.activations import ALIASES, FUNCTIONS, NAMES
from unvanish.theory.program.layers import width
from unvanish.theory.program.signal import Pull, Signal
from unvanish.theory.program.steps import Step
from unvanish.theory.tables import MeansTable, table

RECTIFIERS = {"relu", "relu6"}
OFFSET = 0.1  # mean over rms above which inputs do not count as centred


def table_of(step: Step) -> MeansTable:
    """The table of a step's activation."""
    settings = tuple(sorted(step.facts.get("settings", {}).items()))
    return table(step.kind, settings, step.facts.get("peak"))


def activation(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """<phi^2>, the overlaps of phi, and back <phi'^2>, for Gaussian pre-activations."""
    x, read = given[0], table_of(step)
    q = x.q
    if abs(x.mean) > OFFSET and 0 < q < math.inf:
        return _off_centre(step, x, read, batch)
    power = read.read("power", x.power)
    rms = math.sqrt(max(float(np.mean(power)), 1e-300))
    a, b, c = (read.overlap(q, cosine) for cosine in (x.samples, x.positions, x.apart))
    made = Signal(power, a, b, c, float(read.read("average", q)) / rms)
    slope = read.read("slope", x.power)
    ratio = float(read.read("fourth", q)) / max(float(read.read("slope", q)) ** 2, 1e-300)
    lost = 3 * (ratio - 1) / (2 * width(step.reads[0], x.positions)) / _several(x.samples, batch)
    likeness = read.slope_overlap(q, x.positions)

    def back(pulls: list[Pull]) -> list[Pull]:
        p = pulls[0]
        if p.winners > 1 and step.kind in RECTIFIERS:
            return [replace(p, log=p.log + math.log(1 - 0.5**p.winners), winners=1)]
        if slope.ndim and p.share.shape == slope.shape:
            parts = p.share / max(float(p.share.sum()), 1e-300) * slope
            total = float(parts.sum())
            share = parts / max(total, 1e-300)
        else:
            total, share = float(np.mean(slope)), p.share
        if total <= 0:
            return [Pull()]
        return [Pull(p.log + math.log(total) - lost, share, p.alike * likeness)]

    return [made], back


def _off_centre(step: Step, x: Signal, read: MeansTable, batch: int) -> tuple[list[Signal], Any]:
    """The same for inputs with a mean, such as a stream that sums rectified branches."""
    q, mean = x.q, min(0.999, max(-0.999, x.mean))
    left = 1 - mean**2
    found = read.shift(mean * math.sqrt(q), math.sqrt(q * left))
    a, b, c = (found.overlap((k - mean**2) / left) for k in (x.samples, x.positions, x.apart))
    rms = math.sqrt(max(found.power, 1e-300))
    made = Signal(x.power * (found.power / q), a, b, c, found.average / rms)
    ratio = found.fourth / max(found.slope**2, 1e-300)
    lost = 3 * (ratio - 1) / (2 * width(step.reads[0], x.positions)) / _several(x.samples, batch)
    likeness = found.slope_overlap((x.positions - mean**2) / left)

    def back(pulls: list[Pull]) -> list[Pull]:
        p = pulls[0]
        if found.slope <= 0:
            return [Pull()]
        return [Pull(p.log + math.log(found.slope) - lost, p.share, p.alike * likeness)]

    return [made], back


def _several(likeness: float, batch: int) -> float:
    """The number of samples whose slopes average independently: fewer if they are alike."""
    return batch / (1 + (batch - 1) * max(0.0, likeness) ** 2)


def add(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Powers add, and the product of the means; the gradient goes to every summand."""
    if len(given) < 2:
        made = given[0].plus(step.facts.get("power", 0.0), step.facts.get("mean", 0.0))
        return [made], lambda pulls: [pulls[0]]
    a, b = (g.fit(step.makes[0]) for g in given[:2])
    if step.inputs[0] == step.inputs[1]:
        twice = a.times(4.0 if step.kind == "add" else 0.0)
        return [twice], lambda pulls: [pulls[0].times(4.0), Pull()]
    cross = 2 * a.mean * b.mean * math.sqrt(a.q * b.q) * (1 if step.kind == "add" else -1)
    power = a.power + b.power + cross
    q = float(np.mean(power))

    def joined(one: float, other: float) -> float:
        return (one * a.q + other * b.q + cross) / q if q > 0 else 0.0

    samples, positions = joined(a.samples, b.samples), joined(a.positions, b.positions)
    mean = (a.mean * math.sqrt(a.q) + b.mean * math.sqrt(b.q)) / math.sqrt(q) if q > 0 else 0.0
    made = Signal(np.asarray(power), samples, positions, joined(a.apart, b.apart), mean)

    def back(pulls: list[Pull]) -> list[Pull]:
        return [_sum_broadcast(pulls[0], step, k) for k in range(2)]

    return [made], back


def _sum_broadcast(pull: Pull, step: Step, which: int) -> Pull:
    """The gradient of a broadcast summand: the sum over the positions it was broadcast to."""
    ratio = math.prod(step.makes[0]) / max(1, math.prod(step.reads[which]))
    if ratio <= 1:
        return replace(pull, winners=1)
    return replace(pull.times(1 + (ratio - 1) * max(0.0, pull.alike)), winners=1)


def mul(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Products: a constant's square, or the other factor's power."""
    if len(given) < 2:
        factor = float(step.facts.get("power", 1.0))
        return [given[0].times(factor)], lambda pulls: [replace(pulls[0], winners=1).times(factor)]
    a, b = (g.fit(step.makes[0]) for g in given[:2])
    made = Signal(
        a.power * b.power,
        a.samples * b.samples,
        a.positions * b.positions,
        a.apart * b.apart,
        a.mean * b.mean,
    )

    def back(pulls: list[Pull]) -> list[Pull]:
        p = replace(pulls[0], winners=1)
        factors = (b.q, a.q) if step.inputs[0] != step.inputs[1] else (4 * a.q, 0.0)
        return [_sum_broadcast(p.times(f), step, k) for k, f in enumerate(factors)]

    return [made], back


def view(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """The same numbers in another shape; the map of positions stays if the shape keeps it."""
    x = given[0]
    kept = step.makes and x.power.shape == tuple(step.makes[0][2:])
    made = x if kept else x.flat()
    size = tuple(step.reads[0][2:])
    selected = sum(math.prod(s) for s in step.makes) / max(1, math.prod(step.reads[0]))

    def back(pulls: list[Pull]) -> list[Pull]:
        total = Pull()
        for pull in pulls:
            total = total.plus(pull) if pull.log > -math.inf else total
        if len(pulls) == 1:
            total = pulls[0]
        if total.share.shape != size and total.share.ndim:
            total = replace(total, share=np.ones(()))
        return [replace(total, part=total.part * min(1.0, selected))]

    return [made], back


VIEWS = (
    "view", "reshape", "transpose", "permute", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous",
    "clone", "t", "T", "mT", "movedim", "swapaxes", "view_as", "to", "float", "double", "half", "bfloat16",
    "type", "type_as", "alias", "ravel", "identity", "expand", "expand_as", "chunk", "split", "unbind",
    "getitem", "select", "narrow", "index_select", "gather", "roll", "flip", "masked_fill", "neg", "where",
    "channel_shuffle", "pixel_shuffle", "unsafe_chunk", "unsafe_split", "split_with_sizes", "pad", "repeat",
)  # fmt: skip
POINTWISE: dict[str, Any] = {
    **dict.fromkeys([*NAMES, *ALIASES, *FUNCTIONS], activation),
    **dict.fromkeys(("add", "sub"), add),
    **dict.fromkeys(("mul", "div"), mul),
    **dict.fromkeys(VIEWS, view),
}
