"""Mean average precision: closed cases, a slow oracle, and the metrics of a detector."""

from __future__ import annotations

import math

import pytest
import torch

from unvanish.lab.detection.boxes import corners, iou
from unvanish.lab.detection.precision import overall, precision_table
from unvanish.lab.tasks import task

OVERLAPS = [0.5 + 0.05 * i for i in range(10)]
FACTS = {"classes": 3, "size": 64}
NUMBERS = ("mAP50-95", "mAP50", "precision", "recall")


def means(truth, found, images, classes):
    return overall(precision_table(truth, found, images, classes))


def one(image, label, x, y, w, h, score=None):
    box = {"image_id": image, "category_id": label, "bbox": [x, y, w, h], "area": w * h}
    return box if score is None else {**box, "score": score}


def average_precision(truth, found, label, overlap):
    """Of one class at one overlap, after COCO: 101 recalls, each with the best precision from there on."""
    real = [t for t in truth if t["category_id"] == label]
    taken, hits = set(), []
    for f in sorted((f for f in found if f["category_id"] == label), key=lambda f: -f["score"]):
        best, which = overlap, None
        for i, t in enumerate(real):
            if t["image_id"] != f["image_id"] or i in taken:
                continue
            fit = float(iou(*(_corners(b["bbox"]) for b in (t, f))))
            if fit >= best:
                best, which = fit, i
        taken |= {which} - {None}
        hits.append(which is not None)
    reached = [(sum(hits[: i + 1]) / len(real), sum(hits[: i + 1]) / (i + 1)) for i in range(len(hits))]
    at = [max((p for r, p in reached if r >= recall / 100 - 1e-12), default=0.0) for recall in range(101)]
    return sum(at) / 101


def _corners(box):
    x, y, w, h = box
    return torch.tensor([x, y, x + w, y + h], dtype=torch.float64)


def test_all_found_is_one_and_nothing_found_is_zero():
    truth = [one(0, 0, 1, 1, 10, 10), one(1, 2, 5, 5, 10, 20)]
    assert means(truth, [{**t, "score": 0.9} for t in truth], 2, 3) == (1.0, 1.0)
    assert means(truth, [], 2, 3) == (0.0, 0.0)
    assert means([], [one(0, 0, 1, 1, 2, 2, 0.5)], 2, 3) == (0.0, 0.0)


def test_a_box_of_overlap_six_tenths_counts_up_to_there():
    truth = [one(0, 0, 0, 0, 10, 10)]
    both = means(truth, [one(0, 0, 0, 0, 10, 6.2, 0.9)], 1, 1)
    assert both == (pytest.approx(0.3), 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_a_slow_one(seed):
    g = torch.Generator().manual_seed(seed)
    truth, found = [], []
    for image in range(6):
        for _ in range(int(torch.randint(0, 5, (1,), generator=g))):
            x, y, w, h = (20 * torch.rand(4, generator=g) + 3).tolist()
            label = int(torch.randint(3, (1,), generator=g))
            truth.append(one(image, label, x, y, w, h))
            for _ in range(int(torch.randint(0, 3, (1,), generator=g))):
                dx, dy, dw, dh, score = torch.rand(5, generator=g).tolist()
                found.append(one(image, label, x + 2 * dx, y + 2 * dy, w + 3 * dw, h + 3 * dh, score))
        found.append(one(image, 1, *(30 * torch.rand(4, generator=g) + 1).tolist(), 0.3))
    classes = sorted({t["category_id"] for t in truth})
    table = [[average_precision(truth, found, c, o) for c in classes] for o in OVERLAPS]
    expected = sum(map(sum, table)) / (10 * len(classes)), sum(table[0]) / len(classes)
    assert means(truth, found, 6, 3) == pytest.approx(expected, abs=1e-6)


def rows(seed=0, images=4):
    made = torch.Generator().manual_seed(seed)
    return task("detect").invent_targets(images, FACTS, made)


def perfect(y, images=4, cells=12):
    """A decoded output that says exactly what is there."""
    output = torch.zeros(images, 4 + 3, cells)
    for number, row in enumerate(y):
        output[int(row[0]), :4, number % cells] = row[2:] * FACTS["size"]
        output[int(row[0]), 4 + int(row[1]), number % cells] = 0.9
    return output


def test_the_task_says_how_it_is_trained():
    detect = task("detect")
    assert detect.summed and detect.stride == 32 and detect.defaults["nbs"] == 64 and "mAP" in detect.expect
    assert detect.rate(4) == 0.00125 and detect.rate(80) == 0.000119
    assert detect.samples(torch.zeros(5, 3, 8, 8), torch.zeros(17, 6)) == 5 and len(detect.page) > 80
    assert task("classify").rate(10) is None and not task("classify").defaults


def test_metrics_of_what_is_right_are_one_and_forget_on_demand():
    y = rows()
    metrics = task("detect").metrics(FACTS)
    metrics.update(perfect(y), y)
    assert metrics.compute() == dict.fromkeys(NUMBERS, pytest.approx(1.0))
    metrics.update(torch.zeros(4, 7, 12), rows(1))
    assert 0.1 < metrics.compute()["mAP50"] < 0.9  # half of the objects were missed
    metrics.reset()
    assert metrics.compute() == {} and metrics.tables() == {}


def test_raw_maps_are_decoded_for_the_metrics():
    y = torch.tensor([[0, 1, 0.3125, 0.3125, 0.25, 0.25]])  # 16 pixels around cell (2, 2) of an 8 x 8 level
    maps = [torch.full((1, 67, side, side), -9.0) for side in (8, 4, 2)]
    maps[0][0, :64, 2, 2] = torch.full((4, 16), -60.0).index_fill(1, torch.tensor([1]), 9.0).flatten()
    maps[0][0, 65, 2, 2] = 4.0
    metrics = task("detect").metrics(FACTS)
    metrics.update(maps, y)
    assert metrics.compute()["mAP50-95"] == pytest.approx(1.0)
    loss = task("detect").loss(0.1)
    worse = [m.clone() for m in maps]
    worse[0][0, 65, 2, 2] = -4.0
    assert float(loss(maps, y)) < float(loss(worse, y)) and math.isfinite(float(loss(maps, y)))


def test_invented_objects_lie_inside():
    y = rows(3, images=5)
    edges = corners(y[:, 2:])
    assert y.shape == (10, 6) and set(y[:, 0].tolist()) == set(range(5))
    assert edges.min() >= 0 and edges.max() <= 1 and y[:, 1].max() < 3


def guesses(seed, images=6, cells=40):
    """Objects, and a decoded output of guesses near them and elsewhere."""
    g = torch.Generator().manual_seed(seed)
    y = rows(seed, images)
    output = torch.rand(images, 7, cells, generator=g) * torch.tensor([64, 64, 30, 30, 1, 1, 1])[:, None]
    output[:, 4:] *= 0.4
    for number, row in enumerate(y.repeat(2, 1)):
        near = row[2:] * FACTS["size"] + 3 * torch.randn(4, generator=g)
        output[int(row[0]), :4, number] = near
        output[int(row[0]), 4 + int(row[1]), number] = torch.rand(1, generator=g)
    return output, y


@pytest.mark.parametrize("seed", range(4))
def test_precision_over_recall_is_that_of_the_evaluator(seed):
    """Hits and curves are our own, average precision is faster-coco-eval's: at 0.5 they must agree."""
    metrics = task("detect").metrics(FACTS)
    output, y = guesses(seed)
    metrics.update(output[:3], y[y[:, 0] < 3])
    metrics.update(output[3:], y[y[:, 0] >= 3] - torch.tensor([3, 0, 0, 0, 0, 0]))
    tables, (scores, labels, hits) = metrics.tables(), metrics.ranking.sort()
    assert tables["objects"].tolist() == torch.bincount(y[:, 1].long(), minlength=3).tolist()
    for label in range(3):
        own, real = hits[labels == label], int(tables["objects"][label])
        reached = [(own[: i + 1].sum() / real, own[: i + 1].sum() / (i + 1)) for i in range(len(own))]
        expected = [max((p for r, p in reached if r >= q / 100 - 1e-12), default=0.0) for q in range(101)]
        assert tables["pr"][label].tolist() == pytest.approx(expected, abs=1e-9)
        assert float(tables["ap50"][label]) == pytest.approx(sum(expected) / 101)
    assert metrics.compute()["mAP50-95"] == pytest.approx(float(tables["ap50-95"].nanmean()))
    assert len(scores) > 100 and tables["f1"].shape == (3, 1001)


def test_tables_of_what_is_right_and_what_is_missed():
    y = torch.tensor([[0, 1, 0.3, 0.3, 0.2, 0.2], [1, 1, 0.5, 0.5, 0.4, 0.2], [1, 0, 0.7, 0.2, 0.2, 0.2]])
    output = perfect(y, images=2)
    output[1, 4:, 2] = 0  # the object of class 0 is missed
    metrics = task("detect").metrics(FACTS)
    metrics.update(output, y)
    tables = metrics.tables()
    assert tables["confusion"].tolist() == [[0, 0, 0, 1], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert tables["ap50"].tolist()[:2] == [0, pytest.approx(1)] and tables["ap50"].isnan().tolist()[2]
    assert float(tables["balance"][0]) == pytest.approx(0.9) and tables["objects"].tolist() == [1, 2, 0]
    assert metrics.compute()["recall"] == 0.5
