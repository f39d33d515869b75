"""Masks: mixed, cut, taught and judged, beside pixels one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unvanish.lab.data.outlines import masks_of
from unvanish.lab.detection.assign import assign
from unvanish.lab.detection.mask_loss import SegmentationLoss
from unvanish.lab.detection.mask_metrics import mask_iou
from unvanish.lab.detection.masks import inside_boxes, mix_masks
from unvanish.lab.detection.raw_maps import read_maps
from unvanish.lab.detection.truth import pad_truth
from unvanish.lab.models import build
from unvanish.lab.tasks import task

CLASSES, MIXED = 2, 5
FACTS = {"classes": CLASSES, "size": 64}
ROWS = torch.tensor([[0, 0, 0.5, 0.5, 0.61, 0.7], [0, 1, 0.3, 0.6, 0.43, 0.33], [1, 1, 0.6, 0.31, 0.5, 0.4]])


def maps(seed=0, images=3):
    g = torch.Generator().manual_seed(seed)
    channels = 64 + CLASSES + MIXED
    levels = [
        torch.randn(images, channels, 8 >> i, 8 >> i, generator=g, requires_grad=True) for i in range(3)
    ]
    return [*levels, torch.randn(images, MIXED, 16, 16, generator=g, requires_grad=True)]


def some_masks(rows, seed=0, side=16):
    return (torch.rand(len(rows), side, side, generator=torch.Generator().manual_seed(seed)) > 0.5).to(
        torch.uint8
    )


def test_pixels_lie_in_a_box_from_its_low_edges_up_to_its_high_ones():
    found = inside_boxes(torch.tensor([[1.0, 0.5, 3.0, 2.0], [0.0, 0.0, 9.0, 9.0]]), 3, 4)
    assert found[0].tolist() == [[False] * 4, [False, True, True, False], [False] * 4]
    assert found[1].all()


def test_masks_are_sums_of_prototypes():
    prototypes = torch.rand(3, 4, 5)
    found = mix_masks(torch.tensor([[1.0, 0, 0], [0.5, -2, 1]]), prototypes)
    torch.testing.assert_close(found[0], prototypes[0])
    torch.testing.assert_close(found[1], 0.5 * prototypes[0] - 2 * prototypes[1] + prototypes[2])
    assert mix_masks(torch.zeros(0, 3), prototypes).shape == (0, 4, 5)


def slowly(output, rows, masks):
    """The masks' loss pixel by pixel."""
    *levels, prototypes = output
    found = read_maps(levels, MIXED)
    truth = pad_truth(rows, len(prototypes), (8, 8))
    given = assign(found.logits.detach().sigmoid(), found.boxes.detach(), found.centres, truth)
    losses = []
    for b, a in given.positive.nonzero().tolist():
        row = int(truth.rows[b, given.objects[b, a]])
        x, y, w, h = rows[row, 2:].tolist()
        total = 0.0
        for v in range(16):
            for u in range(16):
                if (x - w / 2) * 16 <= u < (x + w / 2) * 16 and (y - h / 2) * 16 <= v < (y + h / 2) * 16:
                    z = float((found.extra[b, a] * prototypes[b, :, v, u]).sum().detach())
                    t = int(masks[row, v, u])
                    total += math.log1p(math.exp(-abs(z))) + max(z, 0) - z * t
        losses.append(total / 256 / (w * h))
    return 7.5 * sum(losses) / max(1, len(losses))


@pytest.mark.parametrize("seed", range(2))
def test_the_loss_agrees_with_a_slow_one(seed):
    output, masks = maps(seed), some_masks(ROWS, seed)
    parts = SegmentationLoss().parts(output, (ROWS, masks))
    assert float(parts["mask"].detach()) == pytest.approx(slowly(output, ROWS, masks), rel=1e-4)
    weighed = SegmentationLoss(mask=1.5).parts(output, (ROWS, masks))
    assert float(weighed["mask"].detach()) == pytest.approx(float(parts["mask"].detach()) / 5, rel=1e-6)
    assert all(torch.equal(weighed[name], parts[name]) for name in ("box", "class", "dfl"))
    SegmentationLoss()(output, (ROWS, masks)).backward()
    assert all(m.grad.isfinite().all() and m.grad.abs().sum() > 0 for m in output)
    assert output[-1].grad[2].abs().sum() == 0  # an image without objects teaches no prototype


def test_without_objects_every_output_still_has_a_gradient():
    output = maps()
    SegmentationLoss()(output, (ROWS[:0], some_masks(ROWS[:0]))).backward()
    assert all(m.grad is not None and m.grad.isfinite().all() for m in output)


def test_outlines_become_masks_of_their_middles():
    square = np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.5], [0.25, 0.5]], np.float32)
    triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    first, second = masks_of([square, triangle], 128)
    assert first.shape == (32, 32) and int(first.sum()) == 16 * 8
    assert first[8:16, 8:24].all()
    assert int(second.sum()) == pytest.approx(32 * 32 / 2, rel=0.05) and second[0, 0] and not second[-1, -1]
    assert masks_of([], 128).shape == (0, 32, 32)


def perfect(rows, masks):
    """A decoded output and prototypes that say exactly what is there: a prototype an object."""
    output = torch.zeros(2, 4 + CLASSES + len(rows), 6)
    prototypes = torch.zeros(2, len(rows), 16, 16)
    for number, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        image = int(row[0])
        output[image, :4, number] = row[2:] * 64
        output[image, 4 + int(row[1]), number] = 0.9
        output[image, 4 + CLASSES + number, number] = 1
        prototypes[image, number] = 20.0 * mask - 10
    return output, prototypes


def test_metrics_tell_right_masks_from_wrong_ones_in_right_boxes():
    side = inside_boxes(
        torch.cat((ROWS[:, 2:4] - ROWS[:, 4:] / 2, ROWS[:, 2:4] + ROWS[:, 4:] / 2), 1) * 16, 16, 16
    )
    masks = side.to(torch.uint8)
    masks[:, :, ::3] = 0
    metrics = task("segment").metrics(FACTS)
    metrics.update(perfect(ROWS, masks), (ROWS, masks))
    names = ("mAP50-95", "mAP50", "precision", "recall")
    expected = dict.fromkeys([*names, *(f"mask {name}" for name in names)], pytest.approx(1.0))
    assert metrics.compute() == expected
    assert metrics.tables()["confusion"].trace() == len(ROWS) and "mask pr" in metrics.tables()
    metrics.reset()
    metrics.update(perfect(ROWS, 1 - masks), (ROWS, masks))
    found = metrics.compute()
    assert found["mAP50"] == pytest.approx(1.0) and found["mask mAP50"] == 0
    assert found["precision"] == pytest.approx(1.0) and found["mask precision"] == 0


def test_overlaps_of_masks_are_counted_in_pixels():
    a, b = (torch.rand(n, 5, 7, generator=torch.Generator().manual_seed(n)) > 0.5 for n in (4, 3))
    a[0] = b[0] = False
    for i, j in np.ndindex(4, 3):
        both, either = int((a[i] & b[j]).sum()), int((a[i] | b[j]).sum())
        assert float(mask_iou(a, b)[i, j]) == pytest.approx(both / max(1, either))


def test_raw_maps_are_judged_as_they_are_decoded():
    torch.manual_seed(0)
    net = build("yolo11n-seg.yaml", classes=CLASSES, size=64)
    x, y = (
        torch.rand(2, 3, 64, 64),
        task("segment").invent_targets(2, FACTS, torch.Generator().manual_seed(0)),
    )
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.momentum = None
    net(x)
    net.eval()
    with torch.no_grad():
        whole = net(x)
        net.final.decodes = False
        both = [task("segment").metrics(FACTS) for _ in range(2)]
        both[0].update(whole, y)
        both[1].update(net(x), y)
    assert len(both[0].found) == len(both[1].found)
    assert both[0].compute() == pytest.approx(both[1].compute(), abs=1e-6)


def test_invented_masks_fill_their_boxes():
    rows, masks = task("segment").invent_targets(3, FACTS, torch.Generator().manual_seed(0))
    share = masks.float().mean((1, 2)) / rows[:, 4:].prod(1)
    assert masks.shape == (6, 16, 16) and ((share - 1).abs() < 0.35).all()
