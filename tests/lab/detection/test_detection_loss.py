"""The loss of a detector, beside one that is written cell by cell in float64."""

from __future__ import annotations

import math

import pytest
import torch

from unvanish.lab.detection.assign import assign
from unvanish.lab.detection.boxes import ciou
from unvanish.lab.detection.loss import DetectionLoss, detection_parts, distances, distribution
from unvanish.lab.detection.raw_maps import decode_maps, read_maps
from unvanish.lab.detection.truth import pad_truth
from unvanish.lab.models import build
from unvanish.lab.models.blocks.detect import Detect, anchors

CLASSES = 3
Y = torch.tensor(
    [
        [0, 0, 0.50, 0.50, 0.60, 0.70],
        [0, 2, 0.30, 0.60, 0.30, 0.20],
        [1, 1, 0.70, 0.20, 0.50, 0.30],
        [1, 1, 0.75, 0.25, 0.30, 0.30],
    ]
)  # fmt: skip


def maps(seed=0, images=3, side=8, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    made = [
        torch.randn(images, 64 + CLASSES, side >> i, side >> i, generator=g, dtype=dtype) for i in range(3)
    ]
    return [m.requires_grad_() for m in made]


def slowly(levels, y):
    """Box, class and dfl, cell by cell; boxes in pixels, of which the first level's cells have 8."""
    images, side = len(levels[0]), levels[0].shape[-1] * 8
    strides = [side / m.shape[-1] for m in levels]
    points, sizes = anchors(levels, strides)
    cells = torch.cat([m.detach().flatten(2) for m in levels], 2).transpose(1, 2).double()
    centres = (points * sizes).T.double()
    boxes = torch.zeros(images, len(centres), 4, dtype=torch.float64)
    for b in range(images):
        for a in range(len(centres)):
            bins = cells[b, a, :64].reshape(4, 16).softmax(-1)
            left, top, right, bottom = (bins @ torch.arange(16.0, dtype=torch.float64)) * sizes[a]
            x, y_ = centres[a]
            boxes[b, a] = torch.stack((x - left, y_ - top, x + right, y_ + bottom))
    truth = pad_truth(y.double(), images, (side, side))
    given = assign(cells[..., 64:].sigmoid(), boxes, centres, truth)
    total = max(1.0, float(given.scores.sum()))
    box = score = dfl = 0.0
    for b in range(images):
        for a in range(len(centres)):
            for c in range(CLASSES):
                p, t = 1 / (1 + math.exp(-cells[b, a, 64 + c])), float(given.scores[b, a, c])
                score -= t * math.log(p) + (1 - t) * math.log(1 - p)
            if not given.positive[b, a]:
                continue
            weight, true = float(given.scores[b, a].sum()), truth.boxes[b, given.objects[b, a]]
            box += (1 - float(ciou(boxes[b, a], true))) * weight
            x, y_ = centres[a].tolist()
            sides = [x - true[0], y_ - true[1], true[2] - x, true[3] - y_]
            for i, length in enumerate(sides):
                t = min(max(float(length / sizes[a]), 0), 14.99)
                log = cells[b, a, 16 * i : 16 * i + 16].log_softmax(-1)
                low = int(t)
                dfl -= float(log[low] * (low + 1 - t) + log[low + 1] * (t - low)) / 4 * weight
    return {"box": 7.5 * box / total, "class": 0.5 * score / total, "dfl": 1.5 * dfl / total}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [4, 1, 0])
def test_it_agrees_with_a_slow_one(seed, rows):
    levels = maps(seed)
    found = DetectionLoss().parts(levels, Y[:rows])
    expected = slowly(levels, Y[:rows])
    for name, value in expected.items():
        assert float(found[name].detach()) == pytest.approx(value, rel=2e-5, abs=1e-6), name
    assert float(DetectionLoss()(levels, Y[:rows]).detach()) == pytest.approx(
        sum(expected.values()), rel=2e-5
    )


def test_a_level_without_positives_gets_no_gradient_in_its_boxes_and_some_in_its_scores():
    levels = maps(dtype=torch.float32, images=1)
    with torch.no_grad():
        levels[0][:, 0:64:16] += 6  # boxes of a size that fits
    tiny = torch.tensor([[0, 0, 1 / 16, 1 / 16, 0.08, 0.08]])  # holds one centre of the first level, no other
    DetectionLoss()(levels, tiny).backward()
    assert levels[0].grad[:, :64].abs().sum() > 0
    for level in levels[1:]:
        assert level.grad[:, :64].abs().sum() == 0 and level.grad[:, 64:].abs().sum() > 0


def test_without_objects_only_scores_are_taught():
    levels = maps(images=2)
    DetectionLoss()(levels, Y[:0]).backward()
    assert all(level.grad[:, :64].abs().sum() == 0 and (level.grad[:, 64:] > 0).all() for level in levels)


@pytest.mark.parametrize("length", [0.0, 3.0, 3.25, 14.99])
def test_the_distribution_is_least_where_its_mass_is_right(length):
    sides = torch.full((1, 4), length, dtype=torch.float64)
    low, share = int(length), length - int(length)
    right = torch.full((1, 4, 16), -60.0, dtype=torch.float64)
    right[..., low], right[..., low + 1] = math.log(1 - share + 1e-26), math.log(share + 1e-26)
    entropy = -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)
    assert float(distribution(right, sides)) == pytest.approx(entropy, abs=1e-6)
    assert float(distribution(right / 8 + torch.randn(1, 4, 16), sides)) > entropy


def test_distances_reach_as_far_as_the_bins():
    boxes = torch.tensor([[0.0, 0.0, 40.0, 6.0]])
    found = distances(boxes, torch.tensor([[4.0, 3.0]]), torch.tensor([2.0]))
    assert found[0].tolist() == pytest.approx([2.0, 1.5, 14.99, 1.5])


def test_maps_say_what_the_head_decodes():
    head = Detect((8, 8, 8), CLASSES)
    levels = maps(dtype=torch.float32)
    torch.testing.assert_close(decode_maps(levels, 64), head.decode(levels), rtol=1e-4, atol=1e-4)


def test_a_decoded_output_is_refused_with_the_next_step():
    with pytest.raises(TypeError, match=r"net\.train\(\)"):
        DetectionLoss()(torch.rand(2, 7, 84), Y)


def test_it_teaches_a_network_in_a_few_steps():
    torch.manual_seed(0)
    net = build("yolo11n.yaml", classes=CLASSES, size=64)
    x, optimizer, criterion = (
        torch.rand(2, 3, 64, 64),
        torch.optim.AdamW(net.parameters(), 2e-3),
        DetectionLoss(),
    )
    losses = []
    for _ in range(12):
        loss = criterion(net(x), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(map(math.isfinite, losses)) and losses[-1] < 0.8 * losses[0]


def test_the_parts_are_those_of_the_assignment_it_was_given():
    levels = maps()
    found, truth = read_maps(levels), pad_truth(Y, 3, (8, 8))
    given = assign(found.logits.detach().sigmoid(), found.boxes.detach(), found.centres, truth)
    parts = detection_parts(found, truth, given)
    whole = DetectionLoss(box=1.0, cls=1.0, dfl=1.0).parts(levels, Y)
    assert all(torch.equal(parts[k], whole[k]) for k in whole)
    weighed = DetectionLoss(box=2.0, cls=3.0, dfl=0.0).parts(levels, Y)
    for name, gain in (("box", 2.0), ("class", 3.0), ("dfl", 0.0)):
        assert torch.equal(weighed[name], gain * parts[name])
