"""Functions of one number composed of several operations: `x * sigmoid(x)`, a hand-written GELU.

Notable: such operands depend on each other, so the operation is read as an expression in the last tensor that
was a weighted sum. The expression is a curve like any activation's, with the same quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from unvanish.theory.activations import ALIASES, FUNCTIONS, NAMES, Curve, curve
from unvanish.theory.program.pointwise import OFFSET
from unvanish.theory.program.signal import Pull, Signal
from unvanish.theory.program.steps import Program, Step
from unvanish.theory.tables import MeansTable, Shifted

Expression = tuple[Any, ...]  # (operation, settings or number, *operands); ("x",) for the tensor itself
SELF: Expression = ("x",)
UNARY = {*NAMES, *ALIASES, *FUNCTIONS} - {"identity", "linear", "none"}
BINARY = {"add", "sub", "mul", "div"}
LONGEST = 40  # operations in an expression


def compose(program: Program) -> Program:
    """The same program, with operations that are functions of an earlier tensor marked as such."""
    known: dict[int, tuple[int, Expression]] = {}  # tensor: its source, its expression
    steps = list(program.steps)
    for place, step in enumerate(steps):
        found = _expression(step, known)
        if found is None or _size(found[1]) > LONGEST:
            continue
        known[step.outputs[0]] = source, expression = found
        before = [known.get(i, (i, SELF))[1] for i in step.inputs]
        if len(step.inputs) == 2 and step.inputs[0] == step.inputs[1] and step.kind != "mul":
            continue
        if len(step.inputs) == 2 or (step.kind in UNARY and before[0] != SELF):
            facts = {"expression": expression, "before": before[0] if len(before) == 1 else SELF}
            inputs = (source,) if len(before) == 2 else (step.inputs[0], source)
            steps[place] = step._replace(kind="composed", inputs=inputs, facts=facts)
    return replace(program, steps=tuple(steps))


def _expression(step: Step, known: dict[int, tuple[int, Expression]]) -> tuple[int, Expression] | None:
    if len(step.outputs) != 1 or not 0 < len(step.inputs) <= 2 or len({*step.reads, *step.makes}) != 1:
        return None
    parts = [known.get(i, (i, SELF)) for i in step.inputs]
    if len({source for source, _ in parts}) != 1:
        return None
    (source, one), two = parts[0], [e for _, e in parts]
    if len(parts) == 2:
        return (source, (step.kind, 0.0, *two)) if step.kind in BINARY else None
    if step.kind in UNARY:
        return source, (step.kind, tuple(sorted(step.facts.get("settings", {}).items())), one)
    if step.kind == "neg":
        return source, ("scale", -1.0, one)
    number = step.facts.get("number")
    if number is None or step.kind not in ("add", "mul"):
        return None
    return source, ({"add": "shift", "mul": "scale"}[step.kind], float(number), one)


def _size(expression: Expression) -> int:
    return 1 + sum(_size(part) for part in expression[2:])


@lru_cache(maxsize=256)
def _table(expression: Expression) -> MeansTable:
    return MeansTable(Curve("composed", _function(expression)))


def _function(expression: Expression) -> Callable[[Any], Any]:
    if expression == SELF:
        return lambda x: x * 1.0
    kind, setting, *operands = expression
    parts = [_function(part) for part in operands]
    if kind in BINARY and len(parts) == 2:
        import operator

        join = {"div": operator.truediv}.get(kind) or getattr(operator, kind)
        return lambda x: join(parts[0](x), parts[1](x))
    if kind == "scale":
        return lambda x: parts[0](x) * setting
    if kind == "shift":
        return lambda x: parts[0](x) + setting
    plain = curve(kind, **dict(setting))
    return lambda x: plain.function(parts[0](x), **plain.settings)


def follow(step: Step, given: list[Signal], batch: int) -> tuple[list[Signal], Any]:
    """The curve's means at the source; back the whole slope, divided by that of the operations before it."""
    x = given[-1]
    own, before = (_at(_table(step.facts[name]), x) for name in ("expression", "before"))
    mean, left = (x.mean, 1 - x.mean**2) if abs(x.mean) > OFFSET else (0.0, 1.0)
    cosines = [max(-1.0, (c - mean**2) / max(left, 1e-9)) for c in (x.samples, x.positions, x.apart)]
    samples, positions, apart = (own.overlap(c) for c in cosines)
    power = x.power * (own.power / max(x.q, 1e-300))
    made = Signal(power, samples, positions, apart, own.average / math.sqrt(max(own.power, 1e-300)))
    factor = own.slope / before.slope if before.slope > 0 else 0.0
    likeness = own.slope_overlap(cosines[1]) / max(before.slope_overlap(cosines[1]), 1e-9)

    def back(pulls: list[Pull]) -> list[Pull]:
        p = replace(pulls[0], winners=1)
        return [replace(p.times(factor), alike=max(-1.0, min(1.0, p.alike * likeness)))]

    return [made], back


def _at(read: MeansTable, x: Signal) -> Shifted:
    """The means at a signal's size and mean."""
    mean = min(0.999, max(-0.999, x.mean)) if abs(x.mean) > OFFSET else 0.0
    q = min(max(x.q, 1e-12), 1e12)
    return read.shift(mean * math.sqrt(q), math.sqrt(q * (1 - mean**2)))
