"""Whether a file says what its network says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unvanish.train.errors import TrainError

CLOSE, HALVED = 1e-3, 2e-2  # largest difference that passes, as `measure_difference` measures it; of float16


@torch.no_grad()
def compare(
    network: Callable[..., Any],
    example: tuple[Tensor, ...],
    run: Callable[..., Any],
    name: str,
    close: float = CLOSE,
) -> None:
    """TrainError if the outputs of a file differ from the network's."""
    compare_outputs(list_tensors(network(*example)), list_tensors(run(*example)), name, close)


def compare_outputs(
    own: tuple[Tensor, ...], other: tuple[Tensor, ...], name: str, close: float = CLOSE
) -> None:
    """TrainError if outputs of a file, of the same shapes, differ from the network's."""
    for expected, found in zip(own, other, strict=True):
        apart = measure_difference(expected.float(), found.float())
        if not apart <= close:
            text = f"the {name} export differs from the network by {apart:.2g} of its largest output"
            raise TrainError(text)


def measure_difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference over the largest expected value; of (B, C, N) row by row: pixels, scores."""
    rows = (0, 2) if expected.ndim == 3 else tuple(range(expected.ndim))
    largest = expected.abs().amax(rows, keepdim=True).clamp_min(1e-12)
    return float(((found - expected).abs() / largest).max())


def list_tensors(output: Any) -> tuple[Tensor, ...]:
    """The tensors of an output that may be one."""
    return (output,) if isinstance(output, Tensor) else tuple(output)
