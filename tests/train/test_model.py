"""`Model`: from a YAML to predictions and exports, and what it says when something is missing."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.lab.data import open_data
from unvanish.train import Model, TrainError

SMALL = {
    "name": "small",
    "task": "classify",
    "train": {"lr0": 0.01, "batch": 128},
    "layers": [
        {"name": "stem", "module": "Conv", "out": 8, "kernel": 3, "stride": 2},
        {"name": "head", "module": "ClassifyHead"},
    ],
}
ADDER = {
    "name": "adder",
    "task": "sequence",
    "layers": [
        {"module": "Recurrent", "cell": "gru", "width": 8},
        {"module": "Readout", "how": "last"},
        {"module": "SequenceHead"},
    ],
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A small network that has seen digits for two epochs."""
    model = Model(SMALL)
    folder = tmp_path_factory.mktemp("runs")
    model.train("digits.yaml", epochs=2, project=str(folder), verbose=False, plots=False)
    return model


def test_the_public_name():
    assert unvanish.Model is Model


def test_arguments_of_the_yaml_stand_below_the_callers(digits):
    assert digits.settle(None, {}).lr0 == 0.01
    assert digits.settle(None, {"lr0": 0.2}).lr0 == 0.2
    assert digits.settle(None, {}).batch == 128


def test_the_network_is_built_for_the_data(digits):
    assert digits.network(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    assert "parameters" in repr(digits) and "stem" in digits.info()


def test_a_checkpoint_is_a_model_by_itself(digits):
    again = Model(digits.results.best)
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(again.network.eval()(x), digits.network.eval()(x))
    assert again.names == [str(i) for i in range(10)] and again.task == "classify"
    assert again.val(verbose=False).metrics == digits.val("digits.yaml").metrics


def test_it_predicts_arrays_and_pictures(digits, tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (one,) = digits.predict(tmp_path / "a.png")
    assert one.origin.endswith("a.png") and one.name in digits.names and 0 < one.top1conf <= 1
    assert one.top5[0] == one.top1 and float(one.probs.data.sum()) == pytest.approx(1)
    assert next(iter(digits.predict(tmp_path, stream=True))).top1 == one.top1
    assert f"{one.top1conf:.2f}" in str(one)


def test_numbers_are_predicted_for_sequences(tmp_path):
    model = Model(ADDER)
    data = open_data("adding.yaml", length=10, samples=96, batch=16)
    results = model.train(data, epochs=1, project=str(tmp_path), verbose=False, plots=False)
    assert results.metrics["mse"] > 0 and results.fitness == -results.metrics["mse"]
    (prediction,) = model.predict(torch.rand(10, 2))
    assert prediction.output.shape == (1,) and prediction.probs is None
    with pytest.raises(TrainError, match="has no classes"):
        _ = prediction.top1


def test_check_on_a_batch_of_the_data(digits):
    before = {k: v.clone() for k, v in digits.network.state_dict().items()}
    diagnosis = digits.check("digits.yaml")
    assert diagnosis.healthy and diagnosis.subject == "small"
    assert all(torch.equal(v, before[k]) for k, v in digits.network.state_dict().items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("format", ["torchscript", "safetensors"])
def test_an_export_is_the_network(digits, tmp_path, format):
    path = digits.export(format, tmp_path / f"net.{format}")
    x = torch.randn(3, 1, 8, 8)
    load = torch.jit.load if format == "torchscript" else lambda p: Model(p).network.eval()
    with torch.no_grad():
        torch.testing.assert_close(load(str(path))(x), digits.network.eval()(x))
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.filterwarnings("ignore")
def test_onnx_needs_its_packages(digits, tmp_path):
    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxscript"):
        assert digits.export("onnx", tmp_path / "net.onnx").stat().st_size > 1000
    else:
        with pytest.raises(TrainError, match="unvanish\\[export\\]"):
            digits.export("onnx", tmp_path / "net.onnx")


def test_pretrained_weights_except_the_head(digits, trained):
    model = Model({**SMALL, "name": "other"})
    seen = []
    model.add_callback("on_train_start", lambda t: seen.append(t.plain.stem.state_dict()))
    trained(model, "digits.yaml", epochs=1, pretrained=str(digits.results.best))
    for name, tensor in digits.network.stem.state_dict().items():
        assert (
            torch.equal(seen[0][name], tensor) or name.endswith("num_batches_tracked") or seen[0][name].ndim
        )


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m: m.predict("a.png"), "has no weights yet"),
        (lambda m: m.export("onxx"), "did you mean 'onnx'?"),
        (lambda m: m.export(), "has no weights yet"),
        (lambda m: m.train("digits.yaml", epoch=3), "did you mean 'epochs'?"),
        (lambda m: m.val(), "there is no data"),
    ],
)
def test_what_is_missing_is_named(act, message):
    with pytest.raises(TrainError) as caught:
        act(Model(SMALL))
    assert message in str(caught.value)


def test_foreign_weights_need_their_network(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "x.pt")
    with pytest.raises(TrainError, match="holds weights only, without their network"):
        Model(tmp_path / "x.pt")


def test_a_module_of_ones_own_predicts_tensors(trained, network):
    model = Model(network())
    trained(model, epochs=1)
    found = model.predict(torch.randn(3, 8))
    assert len(found) == 3 and found[0].name in "abcd"
    with pytest.raises(TrainError, match="knows no preparation of raw data"):
        model.predict("picture.png")
