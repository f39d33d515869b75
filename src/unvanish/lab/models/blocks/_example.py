"""What a block is tested on: its arguments, the shapes of its inputs, and the shape of its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IMAGE, SERIES = (4, 6, 8, 8), (4, 5, 8)
IDS = ((3, 4, 5, 6, 7), (3, 4, 5, 6, 7), (5, 3, 4, 0, 0), (5, 3, 4, 0, 0))  # padded with 0
FEW_IDS = ((3, 4, 5, 6, 0), (3, 4, 5, 6, 0), (5, 3, 4, 0, 0), (5, 3, 4, 0, 0))  # below 7


@dataclass(frozen=True)
class Example:
    """One call of a block: the `arguments` after `width_in`, the `inputs`, and the shape of the `output`.

    An input is a shape, to be filled with random numbers, or rows of token ids.
    """

    arguments: Mapping[str, Any]
    inputs: Sequence[Sequence[Any]]
    output: tuple[int, ...]
