"""Hand-written normalisations, recognised in a program.

Notable: `x * rsqrt(mean(x^2) + eps)` is a product of two fully dependent tensors, which no map of independent
factors can follow. A factor is traced back to the sum it was computed from; x must be divided by the root of
the mean of its own squares, or of its variance, over its features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from unvanish.theory.program.steps import Program, Step

SAME = {"to", "float", "double", "half", "bfloat16", "type", "type_as", "clone", "contiguous", "identity"}
ALONG = {"expand_as", "type_as", "view_as"}  # the second tensor gives only its shape
KEPT = {"clamp", "clamp_min", "unsqueeze", "expand", "view", "reshape", *ALONG, *SAME}
SUMS = {"mean": 1.0, "sum": 1.0, "var": 1.0, "std": 0.5, "norm": 0.5, "vector_norm": 0.5}


@dataclass(frozen=True)
class NormFactor:
    """The origin of a factor: the tensor, whether its mean was removed, the power of its mean square."""

    tensor: int
    centred: bool
    exponent: float
    elements: int
    gain: float  # of the square
    eps: float
    passed: tuple[int, ...]  # places of the steps in between


def recognise_norms(program: Program) -> Program:
    """The same program with each such normalisation as one step; steps that only served it are set aside."""
    made = {number: place for place, step in enumerate(program.steps) for number in step.outputs}
    steps, aside = list(program.steps), set[int]()
    for place, step in enumerate(program.steps):
        found = _normalisation(program.steps, made, step)
        if found is not None:
            steps[place], passed = found
            aside |= set(passed)
    if not aside:
        return program
    users: dict[int, set[int]] = {}
    for place, step in enumerate(steps):
        for number in step.inputs:
            users.setdefault(number, set()).add(place)
    for place in sorted(aside, reverse=True):
        numbers = steps[place].outputs
        if all(users.get(n, set()) <= aside and n not in program.outputs for n in numbers):
            steps[place] = steps[place]._replace(kind="aside")
    return replace(program, steps=tuple(steps))


def _normalisation(
    steps: tuple[Step, ...], made: dict[int, int], step: Step
) -> tuple[Step, tuple[int, ...]] | None:
    if step.kind not in ("mul", "div") or len(step.inputs) != 2:
        return None
    sides = ((0, 1), (1, 0)) if step.kind == "mul" else ((0, 1),)
    for x, divisor in sides:
        root = _root(steps, made, step.inputs[divisor])
        if root is None or root.exponent != (-0.5 if step.kind == "mul" else 0.5):
            continue
        (tensor, weight), shape, taken = _strip_weight(steps, made, step.inputs[x]), step.reads[x], False
        without = _uncentre(steps, made, tensor)
        if tensor != root.tensor and without == root.tensor and root.centred:
            tensor, taken = root.tensor, True
        if tensor != root.tensor or not shape or root.elements != shape[-1]:
            continue
        if root.centred and not taken:  # divided by its deviation, its mean still there
            continue
        facts = {"gain": weight * root.gain, "shift": 0.0, "eps": root.eps, "elements": root.elements}
        kind = "layer_norm" if root.centred else "rms_norm"
        return step._replace(kind=kind, inputs=(tensor,), reads=(shape,), facts=facts), root.passed
    return None


def _root(steps: tuple[Step, ...], made: dict[int, int], number: int) -> NormFactor | None:
    """Trace back along functions of one number to a sum of squares."""
    exponent, eps, factor, passed = 1.0, 0.0, 1.0, list[int]()
    while number in made:
        place = made[number]
        step = steps[place]
        passed.append(place)
        if step.kind in SUMS:
            found = _squares(steps, made, step, exponent, eps, tuple(passed))
            if found is None:
                return None
            return replace(found, gain=found.gain * (factor if found.exponent < 0 else 1 / factor))
        if len(step.inputs) != 1 and step.kind not in ALONG:
            return None
        if step.kind == "add":
            eps = float(step.facts.get("mean", 0.0))
        elif step.kind in ("mul", "div"):  # by a number
            factor *= float(step.facts.get("power", 1.0)) ** exponent
        elif step.kind not in KEPT:
            power = {"rsqrt": -0.5, "sqrt": 0.5, "reciprocal": -1.0}.get(step.kind)
            if step.kind == "pow":
                power = float(dict(step.facts.get("settings", {})).get("exponent", math.nan))
            if power is None:
                return None
            exponent *= power
        number = step.inputs[0]
    return None


def _squares(
    steps: tuple[Step, ...],
    made: dict[int, int],
    step: Step,
    exponent: float,
    eps: float,
    passed: tuple[int, ...],
) -> NormFactor | None:
    if not step.reads:  # of a weight: weight standardisation
        return None
    elements = math.prod(step.reads[0]) // max(1, math.prod(step.makes[0]))
    tensor, centred = _bare(steps, made, step.inputs[0]), step.kind in ("var", "std")
    if step.kind in ("mean", "sum"):
        square = steps[made[tensor]] if tensor in made else None
        twice = square is not None and square.kind == "mul" and len({*square.inputs}) == 1
        power = dict(square.facts.get("settings", {})).get("exponent") if square is not None else None
        if square is None or not (twice or square.kind == "square" or (square.kind == "pow" and power == 2)):
            return None
        passed = (*passed, made[tensor])
        tensor = _bare(steps, made, square.inputs[0])
    without = _uncentre(steps, made, tensor)
    if without is not None:
        tensor, centred = without, True
    whole = step.kind in ("sum", "norm", "vector_norm")
    gain = 1 / elements if whole else 1.0
    small = eps * gain if SUMS[step.kind] == 1.0 else (eps * gain) ** 2
    return NormFactor(tensor, centred, exponent * SUMS[step.kind], elements, gain, small, passed)


def _strip_weight(steps: tuple[Step, ...], made: dict[int, int], number: int) -> tuple[int, float]:
    """The tensor before casts, copies and a weight per unit, and the weight's mean square."""
    number, weight = _bare(steps, made, number), 1.0
    step = steps[made[number]] if number in made else None
    if step is not None and step.kind == "mul" and len(step.inputs) == 1:
        weight = float(step.facts.get("power", 1.0))
        number = _bare(steps, made, step.inputs[0])
    return number, weight


def _bare(steps: tuple[Step, ...], made: dict[int, int], number: int) -> int:
    """The tensor before casts and copies."""
    while number in made and steps[made[number]].kind in SAME and steps[made[number]].inputs:
        number = steps[made[number]].inputs[0]
    return number


def _uncentre(steps: tuple[Step, ...], made: dict[int, int], number: int) -> int | None:
    """The tensor x if this one is x - mean(x), else None."""
    step = steps[made[number]] if number in made else None
    if step is None or step.kind != "sub" or len(step.inputs) != 2 or step.inputs[1] not in made:
        return None
    mean = steps[made[step.inputs[1]]]
    x = _bare(steps, made, step.inputs[0])
    return x if mean.kind == "mean" and _bare(steps, made, mean.inputs[0]) == x else None
