"""Follows a program: the power of every tensor forward, the norm of every gradient back, without data.

Notable:
- Every operation is a map of a `Signal` and, for the way back, of a `Pull`; each family has its file: layers,
  pointwise, norms, mixing. An unknown operation counts as an identity, and is reported.
- Sums add powers: branches that end in random weights are independent of the stream.
- At width N, ln||d||^2 is lower by kappa/(2N) per layer than at infinite width (Hanin and Nica 2020); a batch
  of different samples reduces that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from unvanish.theory.program.expressions import compose, follow
from unvanish.theory.program.handwritten_norms import recognise_norms
from unvanish.theory.program.layers import LAYERS, Recall
from unvanish.theory.program.mixing import MIXING
from unvanish.theory.program.norms import NORMS
from unvanish.theory.program.pointwise import POINTWISE
from unvanish.theory.program.signal import Pull, Signal
from unvanish.theory.program.steps import Program, Step
from unvanish.theory.recurrent import Memory

Back = Callable[[list[Pull]], list[Pull]]
Map = Callable[[Step, list[Signal], int], tuple[list[Signal], Back]]


@dataclass(frozen=True)
class MeanFieldProfile:
    """The prediction: Signal and Pull of each tensor, memories of recurrent layers, unknown operations."""

    signals: dict[int, Signal]
    pulls: dict[int, Pull]
    memories: dict[int, list[Memory]] = field(
        default_factory=dict
    )  # by the number of a recurrent layer's output
    unknown: tuple[str, ...] = ()


def predict(program: Program, power: float = 1.0, likeness: float = 0.0) -> MeanFieldProfile:
    """Signals and gradients of a program: Gaussian inputs of this power and cosine between samples
    (`likeness`), a random unit cotangent at the outputs.
    """
    program = compose(recognise_norms(program))
    start = Signal(power=np.asarray(float(power)), samples=likeness, apart=likeness)
    signals = dict.fromkeys(program.inputs, start)
    backs: list[tuple[Step, Back]] = []
    unknown: dict[str, None] = {}
    for step in program.steps:
        made, back, known = _follow(step, [signals.get(i, start) for i in step.inputs], program.batch)
        signals.update(zip(step.outputs, made, strict=True))
        backs.append((step, back))
        if not known:
            unknown[step.kind] = None
    pulls = _go_back(program, backs)
    memories = {step.outputs[0]: back.memories for step, back in backs if isinstance(back, Recall)}
    return MeanFieldProfile(signals, pulls, memories, tuple(unknown))


def _follow(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Back, bool]:
    chosen = MAPS.get(step.kind)
    if chosen is None or (not given and step.kind != "embedding"):
        first = given[0].flat() if given else Signal()
        return [first] * len(step.outputs), _evenly(len(step.inputs)), step.kind in SILENT or not given
    made, back = chosen(step, given, batch)
    return (made * len(step.outputs))[: len(step.outputs)], back, True


def _evenly(count: int) -> Back:
    def back(pulls: list[Pull]) -> list[Pull]:
        total = Pull()
        for pull in pulls:
            total = total.plus(pull)
        return [total] * min(count, 1) + [Pull()] * max(0, count - 1)

    return back


def _go_back(program: Program, backs: list[tuple[Step, Back]]) -> dict[int, Pull]:
    sizes = {i: math.prod(shape) for i, shape in program.outputs.items()}
    whole = sum(sizes.values()) or 1
    pulls = {i: Pull(math.log(size / whole)) for i, size in sizes.items() if size}
    for step, back in reversed(backs):
        arrived = [pulls.get(i, Pull()) for i in step.outputs]
        if all(p.log == -math.inf for p in arrived):
            continue
        for i, pull in zip(step.inputs, back(arrived), strict=False):
            pulls[i] = pulls.get(i, Pull()).plus(pull) if i in pulls else pull
    return pulls


SILENT = {
    "aside",
    "dropout",
    "zeros_like",
    "ones_like",
    "cross_entropy_loss",
    "nll_loss",
    "mse_loss",
}  # none of the depth
MAPS: dict[str, Map] = {
    **POINTWISE, **NORMS, **MIXING, **LAYERS, "composed": follow,
}  # fmt: skip  # "linear" is a layer
