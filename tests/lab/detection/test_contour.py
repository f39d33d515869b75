"""Outlines of masks: what they enclose is the mask, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from unvanish.lab.detection.contour import area, outline


def enclosed(xy, shape):
    """The pixels whose middles a ray crosses an odd number of edges to reach, one by one."""
    found = np.zeros(shape, bool)
    edges = list(zip(xy.tolist(), np.roll(xy, -1, 0).tolist(), strict=True))
    for row in range(shape[0]):
        for column in range(shape[1]):
            y, crossed = row + 0.5, 0
            for (x1, y1), (_, y2) in edges:
                crossed += (min(y1, y2) < y < max(y1, y2)) and x1 > column + 0.5
            found[row, column] = crossed % 2
    return found


def largest_parts(mask):
    """The parts that enclose most, holes filled; pixels that touch at a corner belong together."""
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    filled = [ndimage.binary_fill_holes(parts == i) for i in range(1, count + 1)]
    most = max(part.sum() for part in filled)
    return [part for part in filled if part.sum() == most]


def test_a_square_has_four_corners():
    mask = np.zeros((6, 9), bool)
    mask[1:4, 2:7] = True
    assert sorted(outline(mask).tolist()) == [[2, 1], [2, 4], [7, 1], [7, 4]]
    assert area(outline(mask)) == 15
    assert outline(np.ones((1, 1), bool)).tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def test_an_empty_mask_has_no_outline():
    assert outline(np.zeros((4, 4), bool)).shape == (0, 2)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
def test_random_masks_are_enclosed_to_the_pixel(seed, share):
    mask = np.random.default_rng(seed).random((9, 13)) < share
    xy = outline(mask)
    found = enclosed(xy, mask.shape)
    assert any((found == part).all() for part in largest_parts(mask))
    assert area(xy) == found.sum()


def test_a_hole_is_filled_and_the_smaller_part_left_out():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    mask[5:8, 5:8] = False
    mask[15:18, 15:18] = True
    assert area(outline(mask)) == 100 and len(outline(mask)) == 4


def test_a_large_round_mask_is_quick():
    y, x = np.mgrid[:1200, :1600]
    mask = (x - 800) ** 2 + (y - 600) ** 2 < 500**2
    assert area(outline(mask)) == mask.sum()
