"""The heads of detectors: widths, beginnings, and a decoding that agrees with one written as loops."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from unvanish.lab.models.blocks.csp import C3k, C3k2, CrossBottleneck
from unvanish.lab.models.blocks.detect import Detect, Expectation
from unvanish.lab.models.blocks.segment import Segment
from unvanish.lab.models.initialise import METHODS, Begin

WIDTHS = (16, 24, 32)


def levels(side=8, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, w, side >> i, side >> i, generator=generator, requires_grad=True)
        for i, w in enumerate(WIDTHS)
    ]


def decoded_slowly(maps, strides, classes):
    """Boxes and scores of every cell, one after the other, in float64: (B, 4 + classes, A)."""
    images = []
    for image in range(len(maps[0])):
        cells = []
        for level, stride in zip(maps, strides, strict=True):
            values = level[image].double()
            for row in range(level.shape[2]):
                for column in range(level.shape[3]):
                    cell = values[:, row, column]
                    sides = []
                    for side in range(4):
                        weights = [math.exp(v) for v in cell[16 * side : 16 * side + 16]]
                        sides.append(sum(i * w for i, w in enumerate(weights)) / sum(weights) * stride)
                    left, top, right, bottom = sides
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    box = [x + (right - left) / 2, y + (bottom - top) / 2, left + right, top + bottom]
                    scores = [1 / (1 + math.exp(-v)) for v in cell[64 : 64 + classes]]
                    cells.append(box + scores)
        images.append(torch.tensor(cells, dtype=torch.float64).T)
    return torch.stack(images)


@pytest.mark.parametrize(("classes", "hidden"), [(3, 16), (80, 80), (200, 100)])
def test_widths_follow_the_first_level_and_the_classes(classes, hidden):
    head = Detect(WIDTHS, classes)
    assert [b[0].conv.out_channels for b in head.box] == [64] * 3
    assert [s[0][1].conv.out_channels for s in head.score] == [hidden] * 3
    assert Detect((400, 8, 8), 2).box[0][0].conv.out_channels == 100


def test_in_training_it_gives_maps_and_every_weight_gets_a_gradient():
    head, inputs = Detect(WIDTHS, 3), levels()
    maps = head(inputs)
    assert [tuple(m.shape) for m in maps] == [(2, 67, 8, 8), (2, 67, 4, 4), (2, 67, 2, 2)]
    sum((m * torch.randn_like(m)).sum() for m in maps).backward()
    missing = [n for n, p in head.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing and all(x.grad.abs().sum() > 0 for x in inputs)
    assert [n for n, p in head.named_parameters() if not p.requires_grad] == ["expectation.conv.weight"]


@pytest.mark.parametrize("strides", [(8.0, 16.0, 32.0), (4.0, 8.0, 16.0)])
def test_decoding_agrees_with_loops(strides):
    head = Detect(WIDTHS, 3).eval()
    head.place(strides)
    maps = [5 * torch.randn(m.shape) for m in head.maps(levels())]
    expected = decoded_slowly(maps, strides, 3)
    torch.testing.assert_close(head.decode(maps).double(), expected, rtol=1e-5, atol=1e-4)


def test_decoding_goes_with_evaluation_unless_it_is_not_wanted():
    head, inputs = Detect(WIDTHS, 3).eval(), levels()
    assert head(inputs).shape == (2, 7, 64 + 16 + 4)
    head.decodes = False
    torch.testing.assert_close(head.decode(head(inputs)), Detect.forward(_decoding(head), inputs))


def _decoding(head):
    head.decodes = True
    return head


@pytest.mark.parametrize("how", METHODS)
def test_it_begins_with_the_prior_of_its_level(how):
    head = Detect(WIDTHS, 3)
    for branch in head.score:
        torch.nn.init.ones_(branch[-1].bias)
    head.initialise(Begin(how))
    for branch, box, stride in zip(head.score, head.box, (8, 16, 32), strict=True):
        assert branch[-1].bias.tolist() == pytest.approx([math.log(5 / 3 / (640 / stride) ** 2)] * 3)
        assert box[-1].bias.tolist() == [1.0] * 64


def test_the_expectation_of_a_certain_distance_is_it():
    logits = torch.full((1, 16, 4, 2), -40.0)
    logits[0, [3, 0, 15, 7], [0, 1, 2, 3], :] = 40.0
    assert Expectation()(logits)[0, :, 0].tolist() == pytest.approx([3, 0, 15, 7])


def test_masks_have_coefficients_at_every_cell_and_prototypes_at_twice_the_resolution():
    head, inputs = Segment(WIDTHS, 3, masks=5, prototypes=8), levels()
    *maps, prototypes = head(inputs)
    assert [m.shape[1] for m in maps] == [72] * 3 and prototypes.shape == (2, 5, 16, 16)
    boxes, again = head.eval()(inputs)
    assert boxes.shape == (2, 12, 84) and again.shape == (2, 5, 16, 16)
    plain = Detect.decode(head, [m[:, :67] for m in head.maps(inputs)])
    torch.testing.assert_close(boxes[:, :7], plain)


@pytest.mark.parametrize("kind", [Detect, Segment])
def test_a_head_copies_pickles_and_takes_its_state_back(kind):
    torch.manual_seed(0)
    head, inputs = kind(WIDTHS, 3).eval(), levels()
    head.place((4.0, 8.0, 16.0))
    fresh = kind(WIDTHS, 3).eval()
    fresh.load_state_dict(head.state_dict())
    fresh.place((4.0, 8.0, 16.0))
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head)), fresh):
        torch.testing.assert_close(other(inputs), head(inputs))


def test_inner_blocks_are_deep_where_the_row_or_the_variant_says_so():
    for variant, kind in (("", CrossBottleneck), ("n", CrossBottleneck), ("m", C3k), ("l", C3k), ("x", C3k)):
        assert type(C3k2(8, 16, variant=variant).inner[0]) is kind
    assert type(C3k2(8, 16, True).inner[0]) is C3k
    assert C3k2(8, 16, False, 0.25, repeats=3).join.conv.in_channels == 5 * 4
