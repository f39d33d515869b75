"""YOLO11 in five sizes for three tasks: the published counts, layer by layer, and the forward's cost."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unvanish.lab.models import build, read, summary

# parameters, and multiplications with additions of one image in 1e9
PUBLISHED = {
    "yolo11n": (2_624_080, 6.67), "yolo11s": (9_458_752, 21.84), "yolo11m": (20_114_688, 68.64),
    "yolo11l": (25_372_160, 87.85), "yolo11x": (56_966_176, 196.32),
    "yolo11n-seg": (2_876_848, 9.96), "yolo11s-seg": (10_113_248, 33.36), "yolo11m-seg": (22_420_896, 113.97),
    "yolo11l-seg": (27_678_368, 133.18), "yolo11x-seg": (62_142_656, 297.89),
    "yolo11n-cls": (2_812_104, 0.40), "yolo11s-cls": (6_724_008, 1.49), "yolo11m-cls": (11_634_216, 4.86),
    "yolo11l-cls": (14_115_624, 6.10), "yolo11x-cls": (29_637_064, 13.60),
}  # fmt: skip
EARLIER = {
    "yolov8n": 3_157_200, "yolov8s": 11_166_560, "yolov8m": 25_902_640, "yolov8l": 43_691_520,
    "yolov8x": 68_229_648,
}  # fmt: skip
LAYERS = [
    464, 4672, 6640, 36992, 26080, 147712, 87040, 295424, 346112, 164608, 249728, 0, 0, 111296, 0, 0, 32096,
    36992, 0, 86720, 147712, 0, 378880, 464912,
]  # fmt: skip
USERS_OWN = """\
nc: 80
scales:
  n: [0.50, 0.25, 1024]
  m: [0.50, 1.00, 512]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 2, C3k2, [256, False, 0.25]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 2, C3k2, [512, False, 0.25]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 2, C3k2, [512, True]]
  - [-1, 1, Conv, [1024, 3, 2]]
  - [-1, 2, C3k2, [1024, True]]
  - [-1, 1, SPPF, [1024, 5]]
  - [-1, 2, C2PSA, [1024]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 2, C3k2, [512, False]]
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 2, C3k2, [256, False]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 13], 1, Concat, [1]]
  - [-1, 2, C3k2, [512, False]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [[-1, 10], 1, Concat, [1]]
  - [-1, 2, C3k2, [1024, True]]
  - [[16, 19, 22], 1, Detect, [nc]]
"""


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_cost_are_those_published(name):
    net = build(f"{name}.yaml", device="meta").eval()
    assert parameters(net) == PUBLISHED[name][0]
    side = net.facts["size"]
    elements = []  # of norms and activations, which the counter leaves out
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.SiLU):
            module.register_forward_hook(lambda module, given, out: elements.append(out.numel()))
    with FlopCounterMode(display=False) as counted:
        net(torch.empty(1, 3, side, side, device="meta"))
    operations = counted.get_total_flops() + 4 * sum(elements)
    assert operations / 1e9 == pytest.approx(PUBLISHED[name][1], rel=0.005)


def test_every_layer_has_its_share():
    net = build("yolo11n.yaml", device="meta")
    assert [line.parameters for line in summary(net)] == LAYERS
    assert net.final.strides == (8, 16, 32)
    assert parameters(build("yolo11n.yaml", classes=3, device="meta")) == 2_590_425


def test_norms_and_activations_are_the_detectors_own():
    net = build("yolo11n.yaml", device="meta")
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.03)}
    kinds = [type(m).__name__ for m in net.modules() if isinstance(m, torch.nn.SiLU | torch.nn.Identity)]
    assert (kinds.count("SiLU"), kinds.count("Identity")) == (77, 4)


@pytest.mark.parametrize(("name", "count"), [("mine11n", 2_624_080), ("mine11m", 20_114_688)])
def test_a_file_that_users_bring_along_is_the_same_network(tmp_path, name, count):
    (tmp_path / "mine11.yaml").write_text(USERS_OWN, encoding="utf-8")
    spec = read(tmp_path / f"{name}.yaml")
    assert (spec.task, spec.activation, spec.norm, spec.init) == ("detect", "silu", "steady", "torch")
    net = build(spec, device="meta", size=64)
    assert parameters(net) == count and net.final.strides == (8, 16, 32)
    ours = build(f"{name.replace('mine', 'yolo')}.yaml", device="meta").state_dict()
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in ours.items()}


@pytest.mark.parametrize("name", ["yolo11n", "yolo11n-seg"])
def test_it_runs_forward_and_back(name):
    torch.manual_seed(0)
    net = build(f"{name}.yaml", classes=3, size=64)
    maps = net(torch.rand(2, 3, 64, 64))
    assert [m.shape[-1] for m in maps[:3]] == [8, 4, 2] and all(m.isfinite().all() for m in maps)
    sum((m * torch.randn_like(m)).mean() for m in maps).backward()
    assert not [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]
    out = net.eval()(torch.rand(1, 3, 96, 64))  # other sizes will do, sides as multiples of 32
    boxes = out[0] if isinstance(out, tuple) else out
    assert boxes.shape[2] == 12 * 8 + 6 * 4 + 3 * 2


@pytest.mark.parametrize("name", EARLIER)
def test_yolov8_has_its_published_count(name):
    net = build(f"{name}.yaml", device="meta")
    assert sum(p.numel() for p in net.parameters()) == EARLIER[name]


ROWS_OF_OTHERS = """\
nc: 80
backbone:
  - [-1, 1, Conv, [32, 6, 2, 2]]
  - [-1, 3, C3, [32]]
  - [-1, 1, DWConv, [64, 3, 2]]
  - [-1, 2, Bottleneck, [64]]
  - [-1, 1, Conv, [128]]
  - [-1, 1, SPP, [128, [5, 9, 13]]]
head:
  - [[-1], 1, Detect, [nc]]
"""


def test_rows_mean_what_their_users_know(tmp_path):
    (tmp_path / "own.yaml").write_text(ROWS_OF_OTHERS)
    net = build(tmp_path / "own.yaml", size=64).eval()
    children = dict(net.named_children())
    assert children["4"].conv.kernel_size == (1, 1) and children["2"].conv.groups == 32
    assert children["3"][0].first.conv.out_channels == 32 and children["3"][0].adds
    assert sum(p.numel() for p in children["1"].parameters()) == 10_048  # 544 + 544 + 1,088 + 3 x 2,624
    assert [tuple(m.kernel_size) for m in children["6"].score[0][0].children() if hasattr(m, "kernel_size")]
    assert net(torch.rand(1, 3, 64, 64)).shape == (1, 84, 256)
    assert net(torch.rand(1, 3, 64, 64)).isfinite().all()


def test_a_head_on_rows_of_our_own_form_keeps_its_parts_apart():
    rows = [{"module": "Conv", "out": 16, "stride": 8}, {"module": "Detect", "from": [0]}]
    own = build({"task": "detect", "nc": 3, "layers": rows}, size=64)
    assert own._modules["1"].score[0][0][0].conv.groups == 16
    rows[1]["legacy"] = True
    assert (
        build({"task": "detect", "nc": 3, "layers": rows}, size=64)._modules["1"].score[0][0].conv.groups == 1
    )
