"""Layers with weights: linear, convolution, its transpose, embedding, and fused recurrent ones."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from unvanish.theory import convolution, recurrent
from unvanish.theory.convolution import Geometry
from unvanish.theory.program.signal import ONE, Pull, Signal
from unvanish.theory.program.steps import Shape, Step
from unvanish.theory.quadrature import Array
from unvanish.theory.recurrent import Memory


def width(shape: Shape, alike: float = 0.0) -> float:
    """The units of a sample that average independently: the features, for images times the independent
    positions, at most nine, fewer if they are `alike`.
    """
    if len(shape) >= 4:
        positions = min(9, math.prod(shape[2:]))
        return float(shape[1] * positions / (1 + (positions - 1) * alike**2))
    return float(max(1, shape[-1])) if shape else 1.0


def linear(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Q' = S q + b, S = ||W||_F^2 / outputs; back: ||d||^2 times S, its logarithm lower by 1/(N B)."""
    (x, *_), facts = given, step.facts
    total = float(np.sum(facts["taps"]))
    made = replace(x.flat().times(total), mean=0.0).plus(facts["bias_power"], facts["bias_mean"])
    lost = 1 / (width(step.reads[0]) * batch)

    def back(pulls: list[Pull]) -> list[Pull]:
        return [_less(replace(pulls[0], share=ONE, winners=1).times(total), lost)]

    return [made], back


def conv(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """The taps' map over the positions; see `convolution`."""
    (x, *_), facts = given, step.facts
    taps, geometry, shape = facts["taps"], facts["geometry"], step.reads[0]
    power = convolution.forward(taps, _spread(x, shape), geometry)
    made = replace(x, power=power, mean=0.0, squares=None).plus(facts["bias_power"], facts["bias_mean"])

    def back(pulls: list[Pull]) -> list[Pull]:
        arrived = pulls[0].at(step.makes[0])
        share = convolution.backward(taps, arrived, shape[2:], geometry)
        return [_carry(pulls[0], share, 1 / (width(shape, pulls[0].alike) * batch))]

    return [made], back


def conv_transpose(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """A convolution with forward and backward exchanged."""
    (x, *_), facts = given, step.facts
    taps, shape = facts["taps"], step.reads[0]
    geometry: Geometry = facts["geometry"]
    power = convolution.backward(taps, _spread(x, shape), step.makes[0][2:], geometry)
    made = replace(x, power=power, mean=0.0, squares=None).plus(facts["bias_power"], facts["bias_mean"])

    def back(pulls: list[Pull]) -> list[Pull]:
        share = convolution.forward(taps, pulls[0].at(step.makes[0]), geometry)
        return [_carry(pulls[0], share, 1 / (width(shape, pulls[0].alike) * batch))]

    return [made], back


def embedding(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Rows of a random table: independent tokens."""
    return [Signal(power=np.asarray(step.facts.get("table_power", 1.0)))], lambda pulls: [Pull()]


class Recall:
    """The backward map of fused recurrent layers, the last layer first; keeps their memories."""

    def __init__(self, step: Step, power: float) -> None:
        self.cells, self.steps = step.facts["cells"], int(step.facts["steps"])
        self.powers = [power]
        for cell in self.cells:
            self.powers.append(recurrent.power_after(cell, self.steps, self.powers[-1]))
        self.memories: list[Memory] = []

    def __call__(self, pulls: list[Pull]) -> list[Pull]:
        """Back from a gradient at the whole sequence, or at the last step if a selection lies above."""
        total = Pull()
        for pull in pulls:
            total = total.plus(pull)
        whole = pulls[0].log > -math.inf and pulls[0].part > 1.5 / self.steps
        arriving = np.zeros(self.steps) if whole else None
        self.memories, gain = [], 0.0
        for cell, power in zip(reversed(self.cells), reversed(self.powers[:-1]), strict=True):
            found = recurrent.memory(cell, self.steps, power, arriving)
            self.memories.insert(0, found)
            gain += found.through
            arriving = found.inflow - found.inflow[-1]
        return [replace(total, share=ONE, log=total.log + gain, part=1.0)]


def recur(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """Fused recurrent layers, one after the other; the outputs are the sequence and the last states."""
    x = given[0].flat()
    recall = Recall(step, x.q)
    return [replace(x, power=np.asarray(recall.powers[-1]), mean=0.0)], recall


def _spread(x: Signal, shape: Shape) -> Array:
    """The power at every position."""
    size = tuple(shape[2:])
    return x.power if x.power.shape == size else np.full(size, x.q)


def _carry(pull: Pull, share: Array, lost: float) -> Pull:
    total = float(share.sum())
    if total <= 0:
        return Pull()
    return Pull(pull.log + math.log(total) - lost, share / total, pull.alike)


def _less(pull: Pull, nats: float) -> Pull:
    return replace(pull, log=pull.log - nats)


CONVS = {f"conv{n}d": conv for n in (1, 2, 3)}
LAYERS: dict[str, Any] = {
    **dict.fromkeys(("linear", "addmm", "mm_weight"), linear),
    **CONVS,
    **{f"conv_transpose{n}d": conv_transpose for n in (1, 2, 3)},
    "embedding": embedding,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), recur),
}
