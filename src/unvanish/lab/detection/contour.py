"""The outline of a mask along the edges of its pixels, so that it encloses exactly the mask.

Notable:
- An edge lies between a pixel of the mask and one outside, and has the mask on its right. The next edge at a
  corner depends only on the neighbouring pixels, so all edges are chained at once.
- Pixels that touch at a corner are connected. Of several parts the largest is taken; holes are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up, as (x, y)


def outline(mask: npt.NDArray[np.bool_]) -> Floats:
    """The corners (n, 2), as x and y in pixels, of the largest part of a mask (H, W); (0, 2) of an empty one.

    Pixel (row, column) covers the square from (column, row) to (column + 1, row + 1).
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros((0, 2), np.float32)
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    largest = max(_loops(cut), key=area)
    xy: Floats = (_corners(largest) + np.array([columns[0], rows[0]])).astype(np.float32)
    return xy


def area(xy: npt.NDArray[np.generic]) -> float:
    """The area that a loop of points (n, 2) encloses, in square pixels; negative for the edge of a hole."""
    x, y = xy.astype(np.float64).T
    return float(x @ np.roll(y, -1) - np.roll(x, -1) @ y) / 2


def _loops(mask: npt.NDArray[np.bool_]) -> Iterator[Places]:
    """Yield the closed chains of edges, each as the points (n, 2) at which its edges begin."""
    begins = _edges(mask)
    wide = begins.shape[2]
    following = _following(begins).ravel().tolist()
    left = set(np.flatnonzero(begins).tolist())
    while left:
        chain = [left.pop()]
        while (edge := following[chain[-1]]) != chain[0]:
            chain.append(edge)
        left.difference_update(chain)
        place = np.array(chain) % (begins.shape[1] * wide)
        yield np.stack([place % wide, place // wide], 1)


def _edges(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether an edge of direction d begins at a corner, (4, H + 1, W + 1)."""
    padded = np.pad(mask, 1)
    here, above, left = padded[1:, 1:], padded[:-1, 1:], padded[1:, :-1]  # of the pixel right and below
    corner = padded[:-1, :-1]
    return np.stack([here & ~above, left & ~here, corner & ~left, above & ~corner])


def _following(begins: npt.NDArray[np.bool_]) -> Places:
    """The edge that follows each edge, by its flat index; undefined without an edge."""
    count, high, wide = begins.shape
    row, column = np.mgrid[:high, :wide]
    made = []
    for d, (x, y) in enumerate(STEPS):
        ends = np.clip(row + y, 0, high - 1) * wide + np.clip(column + x, 0, wide - 1)
        turns = [(d - 1) % count, d, (d + 1) % count]  # left, where a pixel touches at this corner
        goes = np.stack([begins[t].ravel()[ends] for t in turns]).argmax(0)
        made.append(np.array(turns)[goes] * high * wide + ends)
    return np.stack(made)


def _corners(xy: Places) -> Places:
    """The points of a loop at which it turns."""
    before, after = xy - np.roll(xy, 1, 0), np.roll(xy, -1, 0) - xy
    turning: Places = xy[(before != after).any(1)]
    return turning
