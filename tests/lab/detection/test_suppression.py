"""Non-maximum suppression beside the greedy loop it stands for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unvanish.lab.detection import suppression
from unvanish.lab.detection.boxes import corners, iou
from unvanish.lab.detection.suppression import detections, suppress


def scene(seed, count, classes=3, crowd=0.3):
    g = torch.Generator().manual_seed(seed)
    centres = crowd * torch.rand(count, 2, generator=g)
    boxes = corners(torch.cat((centres, 0.05 + 0.2 * torch.rand(count, 2, generator=g)), 1))
    scores = torch.rand(count, generator=g).mul(50).round() / 50  # with ties
    return boxes, scores, torch.randint(classes, (count,), generator=g)


def greedily(boxes, scores, classes, limit, most):
    """One box after the other, the surest first."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        rivals = [j for j in kept if classes[j] == classes[i]]
        if all(float(iou(boxes[i], boxes[j])) <= limit for j in rivals):
            kept.append(i)
    return kept[:most]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9999), st.integers(0, 60), st.floats(0.1, 0.9), st.sampled_from([5, 300]))
def test_it_is_the_greedy_loop(seed, count, limit, most):
    boxes, scores, classes = scene(seed, count)
    assert suppress(boxes, scores, classes, limit, most).tolist() == greedily(
        boxes, scores, classes, limit, most
    )


def test_blocks_do_not_show(monkeypatch):
    boxes, scores, classes = scene(1, 200, crowd=1.0)
    whole = suppress(boxes, scores, classes, 0.3)
    monkeypatch.setattr(suppression, "BLOCK", 7)
    assert suppress(boxes, scores, classes, 0.3).tolist() == whole.tolist()


def test_a_chain_of_neighbours_keeps_every_other_one():
    left = torch.arange(40.0)
    boxes = torch.stack((left, torch.zeros(40), left + 2, torch.ones(40)), 1)  # neighbours overlap by a third
    kept = suppress(boxes, 1 - left / 100, torch.zeros(40), 0.3)
    assert kept.tolist() == list(range(0, 40, 2))


def decoded():
    """One image, two classes, four cells: two on one object, one apart, one unsure."""
    cells = torch.tensor(
        [
            [10, 10, 8, 8, 0.9, 0.6],
            [10.5, 10, 8, 8, 0.8, 0.1],
            [40, 40, 8, 8, 0.2, 0.7],
            [70, 70, 8, 8, 0.1, 0.05],
        ]
    )  # fmt: skip
    return cells.T[None]


def test_rows_are_corners_score_and_class():
    (rows,) = detections(decoded(), 2)
    assert rows[:, 4].tolist() == pytest.approx([0.9, 0.7]) and rows[:, 5].tolist() == [0, 1]
    assert rows[0, :4].tolist() == [6, 6, 14, 14]


def test_several_classes_of_a_cell_count_where_they_are_wanted():
    (rows,) = detections(decoded(), 2, several=True)
    assert [(round(float(s), 1), int(c)) for s, c in rows[:, 4:6]] == [(0.9, 0), (0.7, 1), (0.6, 1)]
    (rows,) = detections(decoded(), 2, several=True, agnostic=True)
    assert [round(float(s), 1) for s in rows[:, 4]] == [0.9, 0.7]


def test_what_follows_the_classes_comes_along_and_nothing_is_found_where_nothing_is():
    output = torch.cat((decoded(), torch.arange(12.0).view(1, 3, 4)), 1)
    (rows,) = detections(output, 2)
    assert rows[:, 6:].tolist() == [[0, 4, 8], [2, 6, 10]]
    (none,) = detections(output, 2, confidence=0.95)
    assert none.shape == (0, 9)


def test_the_surest_candidates_are_kept_where_there_are_too_many(monkeypatch):
    monkeypatch.setattr(suppression, "CANDIDATES", 2)
    (rows,) = detections(decoded(), 2, confidence=0.01, limit=0.99)
    assert rows[:, 4].tolist() == pytest.approx([0.9, 0.8])
