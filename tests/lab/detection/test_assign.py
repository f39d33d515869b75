"""The assignment of cells to objects, beside one written as loops, and what must hold for any batch."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unvanish.lab.detection.assign import assign
from unvanish.lab.detection.boxes import ciou, corners
from unvanish.lab.detection.truth import pad_truth
from unvanish.lab.models.blocks.detect import anchors

CLASSES = 3


def scene(seed, images=2, objects=6, side=6):
    """Random predictions near random objects: scores, boxes, centres, rows of the truth, in cells."""
    g = torch.Generator().manual_seed(seed)
    maps = [torch.zeros(images, 1, side, side), torch.zeros(images, 1, side // 2, side // 2)]
    points, sizes = anchors(maps, (1.0, 2.0))
    centres = (points * sizes).T
    scores = torch.rand(images, len(centres), CLASSES, generator=g)
    size = 0.5 + 3 * torch.rand(images, len(centres), 2, generator=g)
    boxes = corners(torch.cat((centres.expand(images, -1, -1), size), -1))
    rows = torch.cat(
        (
            torch.randint(images, (objects, 1), generator=g),
            torch.randint(CLASSES, (objects, 1), generator=g),
            torch.rand(objects, 2, generator=g),
            0.1 + 0.5 * torch.rand(objects, 2, generator=g),
        ),
        1,
    )
    return scores.double(), boxes.double(), centres.double(), rows.double(), side


def slowly(scores, boxes, centres, rows, side, top, least=0.0):
    """The same by loops: {(image, cell): (object's row, target score)}."""
    found = {}
    for image in range(len(scores)):
        own = [i for i in range(len(rows)) if int(rows[i, 0]) == image]
        fits, metrics, claims = {}, {}, {}
        for i in own:
            x, y, w, h = (rows[i, 2:] * side).tolist()
            true = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dtype=torch.float64)
            w, h = max(w, least), max(h, least)
            for a, (cx, cy) in enumerate(centres.tolist()):
                if min(cx - x + w / 2, cy - y + h / 2, x + w / 2 - cx, y + h / 2 - cy) > 1e-9:
                    fits[i, a] = max(0.0, float(ciou(true, boxes[image, a])))
                    score = float(scores[image, a, int(rows[i, 1])])
                    metrics[i, a] = score**0.5 * fits[i, a] ** 6
            ranked = sorted((a for j, a in metrics if j == i), key=lambda a: -metrics[i, a])
            for a in ranked[:top]:
                if metrics[i, a] > 0:
                    claims.setdefault(a, []).append(i)
        kept = {a: c[0] for a, c in claims.items()}
        for a in (a for a, c in claims.items() if len(c) > 1):
            kept[a] = max((i for i in own if (i, a) in fits), key=lambda i: fits[i, a])
        for a, i in kept.items():
            cells = [b for b, j in kept.items() if j == i]
            best_fit = max(fits[i, b] for b in cells)
            best = max(metrics[i, b] for b in cells)
            found[image, a] = (i, metrics[i, a] * best_fit / (best + 1e-9))
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 12), st.sampled_from([1, 3, 10]), st.sampled_from([0, 1.9]))
def test_it_agrees_with_loops(seed, objects, top, least):
    scores, boxes, centres, rows, side = scene(seed, objects=objects)
    truth = pad_truth(rows, len(scores), (side, side))
    made = assign(scores, boxes, centres, truth, top, least)
    expected = slowly(scores, boxes, centres, rows, side, top, least)
    weighed = {(b, a) for b, a in (made.weights > 0).nonzero().tolist()}
    assert weighed == {at for at, (_, share) in expected.items() if share > 0}
    for (image, cell), (row, share) in expected.items():
        slot = int(made.objects[image, cell])
        assert int(truth.rows[image, slot]) == row and bool(made.positive[image, cell])
        target = torch.zeros(CLASSES, dtype=torch.float64)
        target[int(rows[row, 1])] = share
        torch.testing.assert_close(made.scores[image, cell], target)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.permutations(range(6)))
def test_the_order_of_the_objects_does_not_matter(seed, order):
    scores, boxes, centres, rows, side = scene(seed)
    one, other = (
        assign(scores, boxes, centres, pad_truth(r, len(scores), (side, side)))
        for r in (rows, rows[list(order)])
    )
    torch.testing.assert_close(one.scores, other.scores)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_no_object_has_more_cells_than_it_may_and_none_outside(seed, top):
    scores, boxes, centres, rows, side = scene(seed)
    truth = pad_truth(rows, len(scores), (side, side))
    made = assign(scores, boxes, centres, truth, top)
    for image in range(len(scores)):
        cells = made.positive[image].nonzero()[:, 0]
        owners = made.objects[image, cells]
        assert torch.bincount(owners).max() <= top if len(owners) else True
        true = truth.boxes[image, owners]
        assert ((centres[cells] > true[:, :2]) & (centres[cells] < true[:, 2:])).all()
    assert made.scores.max() <= 1 and made.scores.min() >= 0


def test_a_box_between_the_centres_finds_cells_where_it_may_look_farther():
    scores, boxes, centres, _, side = scene(0)
    tiny = torch.tensor(
        [[0, 1, 2 / side, 2 / side, 0.1, 0.1]], dtype=torch.float64
    )  # on a corner of four cells
    truth = pad_truth(tiny, 2, (side, side))
    boxes = truth.boxes[:, :1].expand_as(boxes).contiguous()
    assert not assign(scores, boxes, centres, truth).positive.any()
    assert int(assign(scores, boxes, centres, truth, least=2.0).positive[0].sum()) == 4


def test_an_image_without_objects_has_no_positive():
    scores, boxes, centres, rows, side = scene(0)
    made = assign(scores, boxes, centres, pad_truth(rows[:0], 2, (side, side)))
    assert not made.positive.any() and not made.scores.any()
    alone = rows[rows[:, 0] == 0]
    made = assign(scores, boxes, centres, pad_truth(alone, 2, (side, side)))
    assert made.positive[0].any() and not made.positive[1].any()


def test_rows_of_mixed_images_find_their_places():
    y = torch.tensor([[1, 2, 0.5, 0.5, 0.2, 0.4], [0, 1, 0.1, 0.1, 0.1, 0.1], [1, 0, 0.2, 0.3, 0.1, 0.1]])
    truth = pad_truth(y, 3, (10, 20))
    assert truth.real.tolist() == [[True, False], [True, True], [False, False]]
    assert truth.rows.tolist() == [[1, -1], [0, 2], [-1, -1]]
    assert truth.boxes[1, 0].tolist() == [4.0, 6.0, 6.0, 14.0] and truth.classes[1].tolist() == [2, 0]
