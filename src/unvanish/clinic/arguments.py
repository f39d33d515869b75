"""The arguments of `check`, `cure`, `forecast` and `watch`: what each may be, in one table, and their errors.

Notable: they are judged before any work, so a wrong one changes nothing, takes no time and cannot ask for
more memory than there is. What needs the model (a batch that fits it, a loss) is judged where it is used.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unvanish.core.plain import name_value
from unvanish.probes.errors import CheckError

LONG = 10**18


@dataclass(frozen=True)
class Limits:
    """A number from `least` to `most`, a whole one if so; `meaning` ends the sentence of the error."""

    least: float
    most: float
    meaning: str
    whole: bool = False


NUMBERS: Mapping[str, Limits] = {
    "batch_size": Limits(1, 2**20, "samples of the batch", whole=True),
    "power": Limits(1e-30, 1e30, "the mean square of the inputs"),
    "rate": Limits(1e-30, 1e30, "a learning rate"),
    "share": Limits(1e-9, 1, "a share of the run's time (0.01: 1 %)"),
    "seconds": Limits(0, 1e9, "seconds for the search"),
    "steps": Limits(1, 10**6, "steps of the training that proves the cure", whole=True),
    "seed": Limits(0, 2**63 - 1, "a seed", whole=True),
    "every": Limits(1, LONG, "steps from one look to the next", whole=True),
    "start": Limits(0, LONG, "the number of the next step", whole=True),
}
SIDE = 2**31  # of an input
ELEMENTS = 2**40  # of an input that holds no numbers


def require_number(name: str, value: Any, limits: str = "") -> None:
    """CheckError if a value is not the number that `NUMBERS` describes."""
    wanted = NUMBERS[limits or name]
    kind = numbers.Integral if wanted.whole else numbers.Real
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or not wanted.least <= value <= wanted.most:  # which no NaN is
        word = "a whole number" if wanted.whole else "a number"
        end = "" if wanted.most >= LONG else f" to {wanted.most:g}"
        raise CheckError(
            f"{name} is {name_value(value)}; it is {wanted.meaning}, {word} from {wanted.least:g}{end}"
        )


def require_text(**given: Any) -> None:
    """CheckError if one of these is neither a text nor None."""
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise CheckError(f"{name} is {name_value(value)}; it is a text")


def require_flag(**given: Any) -> None:
    """CheckError if one of these is neither true nor false."""
    for name, value in given.items():
        if not isinstance(value, (bool, numbers.Integral)):
            raise CheckError(f"{name} is {name_value(value)}; it is True or False")


def require_path(**given: Any) -> None:
    """CheckError if one of these is neither a path nor None."""
    for name, value in given.items():
        if value is not None and (not isinstance(value, (str, os.PathLike)) or not str(value).strip("\0 ")):
            raise CheckError(f"{name} is {name_value(value)}; it is a path, as in {name}='runs/mine'")


def read_sizes(input_size: Any) -> list[tuple[int, ...]]:
    """The shapes of the samples of one input or of several; CheckError says how they are written."""
    error = CheckError(
        f"input_size is {name_value(input_size)}; it is the shape of one sample, as in (3, 224, 224)"
    )
    if not isinstance(input_size, (tuple, list)):
        raise error
    several = bool(input_size) and all(isinstance(size, (tuple, list)) for size in input_size)
    sizes = [tuple(size) for size in input_size] if several else [tuple(input_size)]
    for size in sizes:
        whole = all(isinstance(n, numbers.Integral) and 0 < int(n) < SIDE for n in size)
        if not whole or len(size) > 8 or math.prod(map(int, size)) > ELEMENTS:
            raise error
    return [tuple(map(int, size)) for size in sizes]
