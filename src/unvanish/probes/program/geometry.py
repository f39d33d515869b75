"""The geometry of a convolution, from the arguments of its call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unvanish.probes import operations
from unvanish.probes.events import OperationCall
from unvanish.theory.convolution import Geometry


def geometry_of(call: OperationCall, kernel: Sequence[int]) -> Geometry:
    """Stride, padding and dilation of a convolution, also a transposed one, for each dimension."""
    n, padding = len(kernel), call["padding"]
    stride, dilation = _each(call["stride"], n), _each(call["dilation"], n)
    if padding == "same":
        return Geometry(
            stride, tuple(_around(d * (k - 1)) for d, k in zip(dilation, kernel, strict=True)), dilation
        )
    pads = _each(0 if padding == "valid" else padding, n)
    extra = _each(call["output_padding"] if call.kind in operations.TRANSPOSED else 0, n)
    return Geometry(stride, tuple((p, p - e) for p, e in zip(pads, extra, strict=True)), dilation)


def _around(whole: int) -> tuple[int, int]:
    """A padding as its two ends; the odd one is at the high end."""
    return whole // 2, whole - whole // 2


def _each(value: Any, n: int) -> tuple[int, ...]:
    """A setting for each of n dimensions."""
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),) * n
