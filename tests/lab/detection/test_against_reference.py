"""Beside the reference, where it is installed: our outputs with its weights, our losses of the same batch."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from unvanish.lab.detection.boxes import corners
from unvanish.lab.detection.loss import DetectionLoss
from unvanish.lab.detection.mask_loss import SegmentationLoss
from unvanish.lab.detection.masks import inside_boxes
from unvanish.lab.models import build
from unvanish.lab.models.published_names import from_published, to_published
from unvanish.lab.tasks import task

installed = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="the reference is not installed"
)
NAMES = ["yolo11n", "yolo11n-seg", "yolo11n-cls", "yolo11m"]
NEW = (8, 4)  # the release line from which small boxes look farther


def test_names_are_translated_part_by_part():
    net = build("yolo11n-seg.yaml", device="meta")
    told = {
        "0.norm.weight": "model.0.bn.weight",
        "2.split.conv.weight": "model.2.cv1.conv.weight",
        "6.inner.0.inner.1.second.norm.bias": "model.6.m.0.m.1.cv2.bn.bias",
        "10.inner.0.attention.position.conv.weight": "model.10.m.0.attn.pe.conv.weight",
        "23.score.0.1.1.conv.weight": "model.23.cv3.0.1.1.conv.weight",
        "23.prototypes.enlarge.bias": "model.23.proto.upsample.bias",
        "23.coefficients.2.2.bias": "model.23.cv4.2.2.bias",
        "23.expectation.conv.weight": "model.23.dfl.conv.weight",
    }
    own = net.state_dict()
    assert set(told) <= set(own) and {name: to_published(net, name) for name in told} == told
    there = {to_published(net, name): value for name, value in own.items()}
    assert len(there) == len(own) and set(from_published(net, there)) == set(own)
    assert from_published(net, own) == dict(own)  # under our own names they are left alone


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The reference's model class, offline."""
    os.environ |= {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0"}
    os.environ["YOLO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("settings"))
    library = torch.library.Library("torchvision", "DEF")  # where its wheel does not fit a torch without CUDA
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return pytest.importorskip("ultralytics"), library


def pair(reference, name):
    """Its network and ours with the same random weights and statistics."""
    torch.manual_seed(0)
    peer = reference[0].YOLO(f"{name}.yaml").model
    for m in peer.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.2)
            m.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(m.weight, 0.5, 1.5)
            torch.nn.init.normal_(m.bias, 0, 0.2)
    net = build(f"{name}.yaml")
    net.load_state_dict(from_published(net, peer.state_dict()))
    return peer.eval(), net.eval()


def tensors(output):
    """Boxes (or classes) and prototypes of an output of either."""
    found = []
    while isinstance(output, tuple):
        output, *rest = output
        found += [r for r in rest if isinstance(r, torch.Tensor)]
    return [output, *found]


@installed
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_equal(reference, name):
    peer, net = pair(reference, name)
    x = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        theirs, ours = tensors(peer(x)), tensors(net(x))
    if name.endswith("cls"):
        torch.testing.assert_close(ours[0].softmax(1), theirs[0], atol=1e-4, rtol=0)
        return
    for own, there in zip(ours, theirs, strict=False):
        torch.testing.assert_close(own, there, atol=1e-4, rtol=1e-4)


def scene(seed, count=24):
    """Objects of many sizes, crowded, on two images; and ellipses as their masks."""
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(2, (count, 1), generator=g).sort(0).values
    label = torch.randint(80, (count, 1), generator=g)
    place, size = (
        0.2 + 0.6 * torch.rand(count, 2, generator=g),
        0.02 + 0.35 * torch.rand(count, 2, generator=g),
    )
    rows = torch.cat((image, label, place, size), 1)
    return rows, inside_boxes(corners(rows[:, 2:] * 64), 64, 64).float()


@installed
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["yolo11n", "yolo11n-seg", "yolo11m"])
def test_losses_are_equal(reference, name, seed):
    from ultralytics.cfg import get_cfg

    peer, net = pair(reference, name)
    peer.args = get_cfg(overrides={"overlap_mask": False})
    for module in (peer, net):
        module.train()
        for m in module.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.eval()
    x, (rows, masks) = torch.rand(2, 3, 256, 256), scene(seed)
    batch = {"img": x, "batch_idx": rows[:, 0], "cls": rows[:, 1:2], "bboxes": rows[:, 2:], "masks": masks}
    version = tuple(int(n) for n in reference[0].__version__.split(".")[:2])
    least = 2.0 if version >= NEW else 0.0
    segments = name.endswith("seg")
    assert task("segment" if segments else "detect").summed
    criterion = SegmentationLoss(least) if segments else DetectionLoss(least)
    with torch.no_grad():
        theirs = peer.loss(batch)[0].sum() / len(x)
        ours = criterion(net(x), (rows, masks) if segments else rows)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-4)
