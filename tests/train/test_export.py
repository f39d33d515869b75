"""Exports of detectors and segmenters: they say what the network says, for any number of images."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from unvanish.train import Model
from unvanish.train.comparing import measure_difference
from unvanish.train.export import draw_sample
from unvanish.train.onnx_file import OneInput

NAMES = ("yolo11n.yaml", "yolo11n-seg.yaml")
SIZE, CLASSES = 96, 4
LACKING = [n for n in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(n) is None]


def built(name):
    """A network with statistics of its own in every norm, and scores that are neither 0 nor 1."""
    torch.manual_seed(0)
    model = Model(name)
    net = model.build(classes=CLASSES, size=SIZE)
    model.about = {"facts": {"classes": CLASSES, "size": SIZE}}
    with torch.no_grad():
        net.train()(torch.rand(4, 3, SIZE, SIZE))
        for branch in net.final.score:
            branch[-1].bias.fill_(-0.5)
    return model, net.eval()


def several(output):
    return output if isinstance(output, (tuple, list)) else (output,)


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_of_any_number_of_images_is_the_network(name):
    """What the ONNX exporter starts from, with the number of images left open."""
    model, net = built(name)
    program = torch.export.export(
        OneInput(net), draw_sample(model), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    for count in (1, 3):
        x = torch.rand(count, 3, SIZE, SIZE)
        with torch.no_grad():
            pairs = zip(several(net(x)), several(program.module()(x)), strict=True)
        for expected, found in pairs:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING)}")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_onnx_says_what_the_network_says(name, tmp_path):
    import onnxruntime

    model, net = built(name)
    path = model.export("onnx", tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        x = torch.rand(count, 3, SIZE, SIZE)
        made = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            pairs = zip(several(net(x)), made, strict=True)
        for expected, found in pairs:
            assert measure_difference(expected, torch.from_numpy(found)) < 1e-4


def test_scores_are_not_hidden_by_pixels():
    expected = torch.cat((torch.full((2, 4, 5), 600.0), torch.full((2, 3, 5), 0.3)), 1)
    other = expected.clone()
    other[1, 5, 2] += 0.1
    assert measure_difference(expected, expected) == 0
    assert measure_difference(expected, other) == pytest.approx(1 / 3, rel=1e-4)
    assert measure_difference(torch.tensor([1.0, 4.0]), torch.tensor([1.1, 4.0])) == pytest.approx(0.025)
