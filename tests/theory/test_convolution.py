"""Maps of positions against explicit sums over taps, with unequal paddings, strides and wrapping."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from unvanish.theory import convolution
from unvanish.theory.convolution import Geometry

GEOMETRIES = [
    ((7,), (3,), Geometry((1,), ((1, 1),), (1,))),
    ((7,), (4,), Geometry((2,), ((0, 3),), (2,))),
    ((9,), (2,), Geometry((3,), ((2, 0),), (3,))),
    ((6, 5), (3, 2), Geometry((2, 1), ((1, 2), (0, 1)), (1, 2))),
    ((4, 3, 5), (2, 1, 3), Geometry((1, 2, 2), ((0, 1), (0, 0), (2, 1)), (2, 1, 1))),
]


def _matrix(taps: np.ndarray, shape: tuple[int, ...], g: Geometry) -> np.ndarray:
    """(outputs, inputs), entry by entry: where each tap of each output reads."""
    span = [d * (k - 1) + 1 for k, d in zip(taps.shape, g.dilation, strict=True)]
    out = [(n + sum(p) - e) // s + 1 for n, p, e, s in zip(shape, g.padding, span, g.stride, strict=True)]
    matrix = np.zeros((*out, *shape))
    for at in itertools.product(*map(range, out)):
        for tap in itertools.product(*map(range, taps.shape)):
            each = zip(at, tap, g.stride, g.dilation, g.padding, strict=True)
            read = [p * s + t * d - low for p, t, s, d, (low, _) in each]
            if g.circular:
                read = [r % n for r, n in zip(read, shape, strict=True)]
            if all(0 <= r < n for r, n in zip(read, shape, strict=True)):
                matrix[(*at, *read)] += taps[tap]
    return matrix.reshape(math.prod(out), math.prod(shape)), out


@pytest.mark.parametrize(("shape", "kernel", "geometry"), GEOMETRIES)
@pytest.mark.parametrize("circular", [False, True])
def test_both_ways_are_one_matrix(
    shape: tuple[int, ...], kernel: tuple[int, ...], geometry: Geometry, circular: bool
) -> None:
    g = Geometry(geometry.stride, geometry.padding, geometry.dilation, circular)
    rng = np.random.default_rng(0)
    taps, x = rng.random(kernel), rng.random(shape)
    taps.flat[0] = 0.0  # a tap without weight
    matrix, out = _matrix(taps, shape, g)
    assert convolution.forward(taps, x, g).ravel() == pytest.approx(matrix @ x.ravel())
    d = rng.random(out)
    back = convolution.backward(taps, d, shape, g)
    assert back.shape == shape
    assert back.ravel() == pytest.approx(matrix.T @ d.ravel())


@pytest.mark.parametrize("kernel", [(1,), (3,), (5, 3), (4,), (2, 2)])
def test_a_plain_geometry_keeps_the_size(kernel: tuple[int, ...]) -> None:
    found = Geometry.plain(kernel)
    assert found.stride == found.dilation == (1,) * len(kernel)
    assert found.circular is False
    assert [sum(p) for p in found.padding] == [k - 1 for k in kernel]
    assert all(high - low in (0, 1) for low, high in found.padding)
    x = np.ones((8,) * len(kernel))
    assert convolution.forward(np.ones(kernel), x, found).shape == x.shape


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "size"), [(3, 5), (5, 7), (7, 3), (1, 4)])
def test_the_retained_share_is_that_of_many_layers(kernel: int, size: int, dimensions: int) -> None:
    taps, g = np.full(kernel, 1 / kernel), Geometry.plain((kernel,))
    d = np.ones(size)
    for _ in range(400):
        d = convolution.backward(taps, d / d.sum(), (size,), g)
    assert convolution.retained_share(kernel, size, dimensions) == pytest.approx(d.sum() ** dimensions)


def test_the_retained_share_of_two_dimensions_is_the_default() -> None:
    assert convolution.retained_share(3, 6) == pytest.approx(((1 + 2 * math.cos(math.pi / 7)) / 3) ** 2)
