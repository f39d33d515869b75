"""Building: widths by a pass without data, routing, torch's and a user's own modules, and errors with
their row.
"""

from __future__ import annotations

import copy
import pickle
import sys

import pytest
import torch

from unvanish.lab.models import SpecError, build, read, summary
from unvanish.lab.models.network import Repeated

OWN = '''
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, width_in: int, factor: float = 2.0):
        super().__init__()
        self.gain = nn.Parameter(torch.full((width_in, 1, 1), factor))

    def forward(self, x):
        return x * self.gain

class Sum(nn.Module):
    """Takes its inputs as one list."""
    def __init__(self, widths_in):
        super().__init__()
        self.widths_in = widths_in

    def forward(self, x):
        return x[0] + x[1]

class Dense(nn.Module):
    def __init__(self, width_in: int, growth: int):
        super().__init__()
        self.conv = nn.Conv2d(width_in, growth, 1)

    def forward(self, x):
        return torch.cat((x, self.conv(x)), 1)

class Looks(nn.Module):
    def forward(self, x):
        return x * (2.0 if x.sum().item() > 1e9 else 1.0)

def function(x):
    return x
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_own_blocks.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_own_blocks"
    sys.modules.pop("my_own_blocks", None)


def net_of(*rows, size=8, channels=3, **keys):
    spec = read({"layers": list(rows), **keys}, allow_code=True)
    return build(spec, size=size, channels=channels)


def test_widths_come_from_the_inputs():
    net = net_of(
        {"name": "a", "module": "nn.Conv2d", "out": 5, "kernel": 3, "padding": 1},
        {"name": "b", "module": "nn.BatchNorm2d"},
        {"name": "c", "module": "Conv", "out": 7, "from": "a"},
        {"name": "d", "module": "Concat", "from": ["b", "c"]},
        {"name": "e", "module": "nn.Conv2d", "args": [4, 1]},
        {"name": "f", "module": "nn.Flatten"},
        {"name": "g", "module": "nn.Linear", "out": "classes"},
        classes=6,
    )
    assert (net.a.in_channels, net.b.num_features, net.c.conv.in_channels) == (3, 5, 5)
    assert (net.e.in_channels, net.g.in_features, net.g.out_features) == (12, 4 * 64, 6)
    assert net.shapes[3] == (2, 12, 8, 8)
    assert net(torch.randn(3, 3, 8, 8)).shape == (3, 6)


def test_the_plan_computes_what_a_hand_written_forward_does():
    net = net_of(
        {"name": "a", "module": "Conv", "out": 4},
        {"name": "b", "module": "Conv", "out": 4},
        {"name": "c", "module": "Add", "from": ["a", "b"]},
        {"name": "d", "module": "Concat", "from": ["c", -3, "image"]},
        {"name": "e", "module": "ClassifyHead", "classes": 2},
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    a = net.a(x)
    b = net.b(a)
    assert torch.equal(net(x), net.e(torch.cat((a + b, a, x), 1)))


def test_an_output_is_let_go_of_after_its_last_reader():
    net = net_of(
        {"name": "a", "module": "Conv", "out": 4},
        {"name": "b", "module": "Conv", "out": 4},
        {"name": "c", "module": "Add", "from": ["a", "b"]},
        {"name": "unread", "module": "Conv", "out": 4, "from": "a"},
        {"name": "e", "module": "ClassifyHead", "classes": 2, "from": "c"},
    )
    assert [step.done for step in net.plan] == [(-1,), (), (1,), (0, 3), (2, 4)]


def test_repeats_stack_and_only_the_first_has_the_stride():
    net = net_of(
        {"name": "a", "module": "Conv", "out": 4, "stride": 2, "repeats": 9},
        {"name": "head", "module": "ClassifyHead", "classes": 2},
    )
    assert isinstance(net.a, Repeated)
    assert [block.conv.stride[0] for block in net.a] == [2] + [1] * 8
    assert [block.conv.in_channels for block in net.a] == [3] + [4] * 8


def test_repeats_that_grow_are_not_taken_for_equal(own):
    net = net_of(
        {"name": "grow", "module": f"{own}.Dense", "growth": 2, "repeats": 8},
        {"name": "head", "module": "ClassifyHead", "classes": 2},
    )
    assert [block.conv.in_channels for block in net.grow] == list(range(3, 19, 2))
    assert net.head.linear.in_features == 19


def test_a_users_own_module_needs_no_registration(own):
    net = net_of(
        {"name": "a", "module": f"{own}.Scale", "factor": 3.0},
        {"name": "b", "module": f"{own}.Sum", "from": ["a", "image"]},
        {"name": "c", "module": f"{own}.Looks"},
        {"name": "head", "module": "ClassifyHead", "classes": 2},
    )
    assert net.b.widths_in == (3, 3)
    x = torch.ones(1, 3, 8, 8)
    assert torch.equal(net.b([net.a(x), x]), torch.full_like(x, 4.0))
    assert net(x).shape == (1, 2)
    with pytest.raises(SpecError, match=r"not a subclass of torch\.nn\.Module"):
        net_of({"module": f"{own}.function"})
    with pytest.raises(SpecError, match=r"has no 'Scal' \(did you mean 'Scale'\?\)"):
        net_of({"module": f"{own}.Scal"})


def test_a_classic_yaml_with_our_blocks(tmp_path):
    path = tmp_path / "mini11.yaml"
    path.write_text(
        "nc: 80\nscales:\n  n: [0.5, 0.25, 1024]\n"
        "backbone:\n  - [-1, 1, Conv, [64, 3, 2]]\n  - [-1, 6, Conv, [1024, 3]]\n"
        'head:\n  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]\n  - [[-1, 2], 1, Concat, [1]]\n'
        "  - [-1, 1, Conv, [256, 1]]\n  - [-1, 1, ClassifyHead, [nc]]\n",
        encoding="utf-8",
    )
    net = build(read(tmp_path / "mini11n.yaml"), nc=10, imgsz=16)
    assert net.get_submodule("0").conv.out_channels == 16
    assert len(net.get_submodule("1")) == 3
    assert net.shapes[1] == (2, 256, 8, 8)
    assert net.shapes[3] == (2, 512, 16, 16)
    assert net.get_submodule("5").linear.out_features == 10  # the data's classes win, and are not scaled
    assert [line.sources for line in summary(net)][:4] == ["image", "0", "1", "2, 2"]


def test_a_layer_of_torch_is_not_given_the_size_of_the_images():
    rows = [{"module": "nn.Upsample", "scale_factor": 2}, {"module": "Conv", "out": 4}]
    net = build({"layers": [*rows, {"module": "ClassifyHead"}]}, classes=2, size=8)
    assert net.shapes[0] == (2, 3, 16, 16)


def test_it_pickles_copies_and_takes_a_state_back():
    net = build("resnet20", classes=3, size=8).eval()
    x = torch.randn(2, 3, 8, 8)
    expected = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), expected)
    fresh = build(net.spec, **net.facts).eval()
    assert not torch.equal(fresh(x), expected)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(x), expected)


def test_equal_seeds_make_equal_networks():
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(build("resnet20", classes=3, size=8))
    assert all(torch.equal(a, b) for a, b in zip(*(n.parameters() for n in nets), strict=True))


def test_meta_takes_no_memory_and_has_the_same_names():
    meta, real = build("resnet20", device="meta"), build("resnet20")
    assert all(p.is_meta for p in meta.parameters())
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (meta, real)]
    assert shapes[0] == shapes[1]


def test_summary_adds_up():
    net = build("resnet56", device="meta")
    lines = summary(net)
    assert sum(line.parameters for line in lines) == sum(p.numel() for p in net.parameters())
    assert (lines[2].module, lines[2].shape, lines[2].sources) == (
        "9 x BasicBlock",
        (2, 32, 16, 16),
        "stage1",
    )
    assert lines[2].arguments == "out=32, stride=2"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"module": "Covn", "out": 8}], r"no module 'Covn' \(did you mean 'Conv'\?\)"),
        ([{"module": "nn.Conv2", "out": 8}], r"did you mean 'nn.Conv2d'\?"),
        ([{"module": "nowhere.to.Find"}], "nowhere.to cannot be imported"),
        ([{"module": "Conv", "out": 8, "kernal": 3}], r"no argument 'kernal' \(did you mean 'kernel'\?\)"),
        ([{"module": "Conv", "out": 8, "repeat": 2}], r"no argument 'repeat' \(did you mean 'repeats'\?\)"),
        ([{"module": "Conv"}], r"layer 0 \(Conv\) needs 'out': give it in the row"),
        ([{"module": "ClassifyHead"}], r"needs 'classes': .* build\(spec, classes=...\)"),
        ([{"module": "Conv", "args": [8], "out": 8}], "'out' is given twice"),
        ([{"module": "Conv", "args": [1] * 9}], "takes 7 arguments"),
        (
            [{"module": "Conv", "out": 8, "activation": "rleu"}],
            r"no activation 'rleu' \(did you mean 'relu'\?\)",
        ),
        ([{"module": "Conv", "out": 8, "norm": "bach"}], r"no norm 'bach' \(did you mean 'batch'\?\)"),
        ([{"module": "nn.Conv2d", "in_channels": 5, "out": 8, "kernel": 3}], r"cannot read \(2, 3, 8, 8\)"),
        (
            [{"module": "Conv", "out": 4}, {"module": "Add", "from": [0, "image"]}],
            r"layer 1 \(Add\) cannot read",
        ),
        ([{"name": "forward", "module": "Conv", "out": 4}], "'forward' is an attribute of every module"),
        ([{"module": "torch.nn.functional.relu"}], "not a subclass"),
        ([{"module": "os.system"}], "not a subclass"),
    ],
)
def test_what_cannot_be_built_names_its_row(rows, told):
    with pytest.raises(SpecError, match=told):
        net_of(*rows)


def test_an_error_of_building_has_its_line(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text(
        "layers:\n- {module: Conv, out: 8}\n- module: Conv\n  out: 8\n  kernl: 3\n", encoding="utf-8"
    )
    with pytest.raises(SpecError) as error:
        build(read(path))
    assert str(error.value).startswith(f"{path}:5: layer 1 (Conv) has no argument 'kernl'")


def test_an_unknown_fact_is_refused():
    with pytest.raises(SpecError, match=r"no fact 'clases' \(did you mean 'classes'\?\)"):
        build("resnet20", clases=3)


@pytest.mark.parametrize("name", ["sentiment", "language", "translate", "sequence"])
def test_ids_need_an_embedding(name):
    if name == "sequence":
        net = build({"task": name, "layers": [{"module": "nn.Linear", "out": 3}]}, features=5)
        assert net(torch.randn(2, 4, 5)).shape == (2, 4, 3)
        return
    with pytest.raises(SpecError, match="pass token ids through an embedding"):
        build({"task": name, "layers": [{"module": "nn.Linear", "out": 3}]})
