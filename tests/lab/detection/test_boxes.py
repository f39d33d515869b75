"""Overlaps of boxes: closed forms, a slow oracle, and what must hold for any boxes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unvanish.lab.detection.boxes import centre_size, ciou, corners, iou

SIDE = st.floats(0.5, 50)
PLACE = st.floats(-50, 50)
BOX = st.tuples(PLACE, PLACE, SIDE, SIDE).map(lambda b: corners(torch.tensor(b, dtype=torch.float64)))


def overlap(a, b):
    """Intersection over union of two boxes, number by number."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return wide * high / (sum(area) - wide * high)


def complete(a, b):
    """Complete IoU after the paper's equations 8 to 11."""
    plain = overlap(a, b)
    middle = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in (a, b)]
    apart = sum((p - q) ** 2 for p, q in zip(*middle, strict=True))
    around = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    angle = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (a, b)]
    v = 4 / math.pi**2 * (angle[0] - angle[1]) ** 2
    alpha = v / (1 - plain + v) if v else 0.0
    return plain - apart / around - alpha * v


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 4, 4), (1, 1, 3, 3), 0.25),
        ((0, 0, 1, 1), (2, 2, 3, 3), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_iou_in_closed_form(a, b, expected):
    assert float(iou(torch.tensor(a).float(), torch.tensor(b).float())) == pytest.approx(expected)


def test_ciou_of_squares_apart_is_their_distance():
    a, b = torch.tensor([0.0, 0, 1, 1]), torch.tensor([3.0, 0, 4, 1])
    assert float(ciou(a, b)) == pytest.approx(-9 / 17)
    assert float(ciou(a, a)) == pytest.approx(1)


@settings(deadline=None, max_examples=60)
@given(BOX, BOX)
def test_both_agree_with_a_slow_oracle(a, b):
    assert float(iou(a, b)) == pytest.approx(overlap(a.tolist(), b.tolist()), abs=1e-9)
    assert float(ciou(a, b)) == pytest.approx(complete(a.tolist(), b.tolist()), abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(BOX, BOX, st.floats(1, 100))
def test_overlaps_are_symmetric_bounded_and_do_not_depend_on_scale(a, b, factor):
    for measure in (iou, ciou):
        value = float(measure(a, b))
        assert -1.5 <= value <= 1 + 1e-9
        assert float(measure(b, a)) == pytest.approx(value, abs=1e-6)
        assert float(measure(factor * a, factor * b)) == pytest.approx(value, abs=1e-5)
    assert float(ciou(a, b)) <= float(iou(a, b)) + 1e-9


@settings(deadline=None, max_examples=30)
@given(BOX)
def test_corners_and_centres_are_inverse(box):
    torch.testing.assert_close(corners(centre_size(box)), box)


def test_boxes_apart_are_drawn_together():
    a = torch.tensor([0.0, 0, 2, 2], requires_grad=True)
    (-ciou(a, torch.tensor([6.0, 0, 8, 2]))).backward()
    assert a.grad[0] + a.grad[2] < 0  # as a whole, against the gradient: to the right


def test_many_against_many_broadcast():
    boxes = corners(torch.rand(5, 4) + 0.1)
    table = iou(boxes[:, None], boxes[None])
    assert table.shape == (5, 5) and torch.allclose(table.diagonal(), torch.ones(5))
