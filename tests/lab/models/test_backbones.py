"""Networks of other libraries as rows: their maps by stage, their own weights, and what is refused."""

from __future__ import annotations

import copy
import pickle
import sys
import types

import pytest
import torch
from torch import nn

from unvanish.lab.models import SpecError, backbones, build, read
from unvanish.lab.models.backbones import without_fetching
from unvanish.train import Model


def spec(module, **settings):
    """A detector on a backbone."""
    levels = [{"name": f"p{i}", "module": "Level", "from": "body", "index": i} for i in range(3)]
    return {
        "task": "detect",
        "nc": 3,
        "backbone": [{"name": "body", "module": module, **settings}],
        "head": [*levels, [["p0", "p1", "p2"], 1, "Detect", ["nc"]]],
    }


class Maps(nn.Module):
    """A stand-in for a timm network that gives maps of strides 2, 4, 8, ..."""

    def __init__(self, width, stages, last, fetched):
        super().__init__()
        self.stages = [s % 5 for s in stages]
        self.convs = nn.ModuleList(
            nn.Conv2d(width if i == 0 else 4 * i, 4 * (i + 1), 3, 2, 1) for i in range(5)
        )
        nn.init.constant_(self.convs[0].weight, 7.0 if fetched else 0.5)
        if last:
            self.output_fmt = "NHWC"

    def forward(self, x):
        found = []
        for conv in self.convs:
            x = conv(x)
            found.append(x)
        chosen = [found[i] for i in self.stages]
        return [x.movedim(1, -1) for x in chosen] if hasattr(self, "output_fmt") else chosen


@pytest.fixture
def timm(monkeypatch):
    """A module in timm's place that knows the networks `tiny` and `tiny_last`; it counts what it fetches."""
    module = types.ModuleType("timm")
    module.fetched = 0
    module.is_model = lambda name: name in ("tiny", "tiny_last")
    module.list_models = lambda: ["tiny", "tiny_last"]
    module.get_pretrained_cfg = lambda name: types.SimpleNamespace(fixed_input_size=False)

    def create(name, features_only, in_chans, out_indices, pretrained):
        assert features_only
        module.fetched += pretrained
        if max(out_indices) > 4:
            raise IndexError("list index out of range")
        return Maps(in_chans, out_indices, name == "tiny_last", pretrained)

    module.create_model = create
    monkeypatch.setitem(sys.modules, "timm", module)
    backbones.backbone_class.cache_clear()
    yield module
    backbones.backbone_class.cache_clear()


@pytest.mark.parametrize("name", ["timm:tiny", "timm:tiny_last"])
def test_a_detector_on_the_stages_of_a_backbone(timm, name):
    net = build(spec(name), size=64, allow_code=True).eval()
    assert net.shapes[0] == ((2, 12, 8, 8), (2, 16, 4, 4), (2, 20, 2, 2))
    assert net._modules["4"].strides == (8, 16, 32)
    x = torch.rand(2, 3, 64, 64)
    out = net(x)
    assert out.shape == (2, 7, 84)
    assert torch.equal(copy.deepcopy(net)(x), out) and torch.equal(
        pickle.loads(pickle.dumps(net.body))(x)[0], net.body(x)[0]
    )


def test_its_weights_stay_under_any_init(timm):
    body = {"name": "body", "module": "timm:tiny", "stages": 4, "pretrained": True}
    table = {"task": "classify", "init": "critical", "layers": [body, {"module": "ClassifyHead"}]}
    net = build(table, size=32, classes=3, allow_code=True)
    assert timm.fetched == 1 and (net.body.body.convs[0].weight == 7).all()
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_saved_weights_are_not_fetched_again(timm, tmp_path):
    for rows in ({"stages": [2, 3, 4], "pretrained": True}, {"args": [[2, 3, 4], True]}):
        kept = without_fetching(read(spec("timm:tiny", **rows), allow_code=True).document)
        before = timm.fetched
        build(kept, size=64, allow_code=True)
        assert timm.fetched == before
    classic = {**spec("timm:tiny"), "backbone": [[-1, 1, "timm:tiny", [[2, 3, 4], True]]]}
    assert without_fetching(classic)["backbone"] == [[-1, 1, "timm:tiny", [[2, 3, 4]]]]
    assert classic["backbone"][0][3] == [[2, 3, 4], True]


def test_it_needs_the_readers_word(timm):
    with pytest.raises(SpecError, match="timm:tiny would run code of the library timm"):
        build(spec("timm:tiny"), size=64)
    with pytest.raises(Exception, match="would run code of the library transformers"):
        Model(spec("hf:resnet")).build(size=64, classes=3, channels=3)


@pytest.mark.parametrize(
    ("module", "settings", "told"),
    [
        ("timm:tinny", {}, "did you mean 'tiny'"),
        ("timm:", {}, "names no network"),
        ("timm:tiny", {"stages": [4, 3, 2]}, "stages must rise"),
        ("timm:tiny", {"stages": [-1, 2, 3]}, "stages must rise"),
        ("timm:tiny", {"stages": [3, 4, 5]}, "gives no maps of the stages"),
        ("timm:tiny", {"stage": 3}, "no argument 'stage'"),
        ("hf:no-such-type", {}, "no configuration for"),
        ("hf:bert", {}, "is no backbone with stages"),
        ("hf:resnet", {"stages": [3, 4, 9]}, "has the stages 0 to 4"),
    ],
)
def test_what_is_refused(timm, monkeypatch, module, settings, told):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if module.startswith("hf"):
        pytest.importorskip("transformers")
    with pytest.raises(SpecError) as error:
        build(spec(module, **settings), size=64, allow_code=True)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_missing_library_is_one_line(monkeypatch):
    backbones.backbone_class.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SpecError, match=r"pip install 'unvanish\[timm\]'"):
        build(spec("timm:resnet18"), size=64, allow_code=True)


def test_a_backbone_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    small = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 6, 8, 10], depths=[1, 1, 1, 1])
    small.out_features = ["stage4"]
    small.save_pretrained(tmp_path)
    net = build(spec(f"hf:{tmp_path}"), size=64, allow_code=True).eval()
    assert net.shapes[0] == ((2, 6, 8, 8), (2, 8, 4, 4), (2, 10, 2, 2))
    assert net(torch.rand(1, 3, 64, 64)).shape == (1, 7, 84)
