"""Networks as ONNX files: what they hold, what is refused, and that they predict as their weights do."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from tests.train.small_nets import DETECTOR
from torch import nn

from unvanish.lab.data import open_data
from unvanish.lab.models.blocks.recurrent import CELLS, Recurrent, turn_in_place
from unvanish.train import Model, TrainError
from unvanish.train.export import ENDINGS, read_form
from unvanish.train.onnx_file import GraphForm, describe_file, enlarge_example, open_sides

LACKING = [n for n in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(n) is None]
needs_onnx = pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING)}")
LINES = ["ein hund rennt schnell", "eine katze schlaeft", "der mann liest ein buch", "zwei hunde rennen"]


def texts(folder, task):
    """Tiny data of a task in a folder."""
    if task == "translate":
        for name in ("train.de", "train.en", "val.de", "val.en"):
            (folder / name).write_text("\n".join(LINES * 4) + "\n")
        return {
            "kind": "parallel",
            "path": str(folder),
            "train": ["train.de", "train.en"],
            "val": ["val.de", "val.en"],
        }
    rows = [f"{line},{'ab'[i % 2]}" for i, line in enumerate(LINES * 6)]
    (folder / "t.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return {"kind": "table", "path": str(folder), "train": "t.csv", "task": "sentiment"}


def known(network, data, task):
    """A model with random weights that knows how its data is prepared, as if it had been trained."""
    torch.manual_seed(0)
    source = open_data(data, task=task, batch=4)
    model = Model(network)
    model.adapt(source.facts, list(source.names))
    facts = dict(source.facts)
    model.about = {
        "format": 1, "name": model.name, "task": task, "spec": dict(model.spec.document), "facts": facts,
        "names": list(source.names), "preparation": dict(source.preparation),
    }  # fmt: skip
    model.network.eval()
    return model


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("layers", "both"), [(1, True), (2, True), (2, False)])
def test_layers_run_apart_as_they_run_packed(cell, layers, both):
    torch.manual_seed(0)
    core = Recurrent(5, 6, cell, layers, both)
    x, mask = torch.randn(3, 7, 5), torch.arange(7)[None] < torch.tensor([[7], [4], [1]])
    packed, last = core.run(x, mask)
    core.packs = False
    if cell == "lstm" and not both:
        with pytest.raises(ValueError, match="last cells is not exported"):
            core.run(x, mask)
        return
    apart, ends = core.run(x, mask)
    torch.testing.assert_close(apart[mask], packed[mask])
    hidden = [s[0] if cell == "lstm" else s for s in (last, ends)]
    torch.testing.assert_close(hidden[1], hidden[0])


def test_sequences_are_turned_in_place():
    x = torch.arange(10.0).view(2, 5, 1)
    assert turn_in_place(x, torch.tensor([3, 5]))[..., 0].tolist() == [[2, 1, 0, 3, 4], [9, 8, 7, 6, 5]]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"opset": 7}, "opset=7 is not written; it is between 18 and"),
        ({"opset": "new"}, "opset='new' is not a whole number"),
        ({"half": 1}, "half=1 is not true or false"),
        ({"dynamic": "yes"}, "is not true or false"),
    ],
)
def test_wrong_forms_are_refused(how, told):
    with pytest.raises(TrainError, match=told):
        read_form("onnx", how)


@pytest.mark.parametrize("name", [{"dynamic": True}, {"opset": 18}, {"simplify": True}])
def test_what_is_for_onnx_is_refused_elsewhere(name):
    with pytest.raises(TrainError, match="is for ONNX, not for torchscript"):
        read_form("torchscript", name)
    assert read_form("onnx", name)[1] == GraphForm(**name)
    assert read_form("torchscript", {"dynamic": False, "half": True}) == (True, GraphForm())


def test_sides_that_are_left_open():
    picture, ids = torch.zeros(2, 3, 8, 8), torch.zeros(2, 5, dtype=torch.long)
    assert set(open_sides(picture, False, 0)) == {0} and set(open_sides(picture, True, 0)) == {0, 2, 3}
    assert set(open_sides(ids, False, 0)) == {0, 1}
    (other,) = enlarge_example((picture,), [["batch", 3, "h", 8]], 32)
    assert other.shape == (3, 3, 40, 8)


def test_what_a_file_says_of_itself():
    found = describe_file({"task": "detect", "names": ["a"]}, (torch.zeros(2, 3, 64, 96),))
    assert (found["names"], found["task"], found["imgsz"], found["stride"]) == (
        '{"0": "a"}',
        "detect",
        "[64, 96]",
        "32",
    )


def test_files_that_do_not_predict(tmp_path):
    with pytest.raises(TrainError, match=r"there is no file|which is not installed"):
        Model(tmp_path / "none.onnx")
    if not LACKING:
        (tmp_path / "broken.onnx").write_bytes(b"nothing")
        with pytest.raises(TrainError, match="no ONNX file that onnxruntime can run"):
            Model(tmp_path / "broken.onnx")


def test_without_onnxruntime_the_next_step_is_named(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "onnxruntime" else find(n, *a)
    )
    with pytest.raises(
        TrainError, match=r"onnxruntime, which is not installed: pip install 'unvanish\[export\]'"
    ):
        Model(tmp_path / "a.onnx")


def test_openvino_needs_its_converter(monkeypatch, tmp_path):
    from unvanish.train import export

    assert "openvino" in ENDINGS
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "openvino" else find(n, *a))
    with pytest.raises(TrainError, match="needs openvino, which is not installed"):
        export.convert_to_openvino(tmp_path / "a.onnx", tmp_path / "b", tmp_path / "c.xml")


DIGITS = {
    "name": "s",
    "task": "classify",
    "layers": [{"module": "Conv", "out": 8}, {"module": "ClassifyHead"}],
}
CASES = [
    ("classify", DIGITS, np.arange(64, dtype=np.uint8).reshape(8, 8) * 3),
    ("sentiment", "lstm-sentiment.yaml", ["ein hund", "die katze schlaeft und der mann liest zwei buecher"]),
    ("sentiment", "gru-sentiment.yaml", ["ein hund", "eine katze"]),
    ("translate", "transformer-translate.yaml", ["ein hund rennt", "zwei katze"]),
]  # fmt: skip


@pytest.mark.slow
@needs_onnx
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", ["gru-attention-translate.yaml", "lstm-attention-translate.yaml"])
def test_what_the_exporter_unrolls_is_refused_and_leaves_no_file(network, tmp_path):
    model = known(network, texts(tmp_path, "translate"), "translate")
    with pytest.raises(TrainError, match="the exporter fixes sizes"):
        model.export("onnx", tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.slow
@needs_onnx
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("task", "network", "asked"), CASES, ids=[str(c[1])[:24] for c in CASES])
def test_files_predict_as_their_weights_do(task, network, asked, tmp_path):
    data = "digits" if task == "classify" else texts(tmp_path, task)
    model = known(network, data, task)
    path = model.export("onnx", tmp_path / "net.onnx")
    again = Model(path)
    assert again.task == task and again.names == model.names
    for one, other in zip(model.predict(asked), again.predict(asked), strict=True):
        if task == "translate":
            assert other.text == one.text and one.output.tolist() == other.output.tolist()
        else:
            torch.testing.assert_close(other.probs.data, one.probs.data, atol=1e-4, rtol=1e-4)
    for verb in ("train", "val", "check", "export"):
        with pytest.raises(TrainError, match=f"only predicts; {verb} takes the weights"):
            getattr(again, verb)()


FORMS = {
    "plain": {}, "raw": {"simplify": False}, "half": {"half": True},
    "old": {"opset": 18}, "large": {"imgsz": 96},
}  # fmt: skip


@pytest.mark.slow
@needs_onnx
@pytest.mark.filterwarnings("ignore")
def test_the_form_of_a_file_is_the_one_asked_for(tmp_path):
    import onnx

    model = known(
        DETECTOR, {"kind": "shapes", "samples": 8, "val_samples": 4, "names": list("abcd")}, "detect"
    )
    with torch.no_grad():
        for branch in model.network.final.score:
            branch[-1].bias.fill_(0.1)
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)
    plain = model.predict(image)[0].boxes.data
    files = {}
    with pytest.raises(TrainError, match="leave out dynamic"):  # places of a detector's cells are fixed
        model.export("onnx", tmp_path / "dynamic.onnx", dynamic=True)
    for name, how in FORMS.items():
        path = model.export("onnx", tmp_path / f"{name}.onnx", **how)
        files[name] = onnx.load(str(path))
    held = {n: [d.dim_value for d in f.graph.input[0].type.tensor_type.shape.dim] for n, f in files.items()}
    assert held["plain"] == [0, 3, 64, 64] and held["large"] == [0, 3, 96, 96]
    assert files["half"].graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert len(files["raw"].graph.node) > len(files["plain"].graph.node)
    assert files["old"].opset_import[0].version == 18
    meta = {p.key: p.value for p in files["plain"].metadata_props}
    assert meta["task"] == "detect" and meta["stride"] == "32" and meta["imgsz"] == "[64, 64]"
    torch.testing.assert_close(
        Model(tmp_path / "plain.onnx").predict(image)[0].boxes.data, plain, atol=1e-2, rtol=1e-3
    )
    wide = Model(tmp_path / "large.onnx").predict(image, imgsz=96)[0].boxes.data
    torch.testing.assert_close(wide, model.predict(image, imgsz=96)[0].boxes.data, atol=1e-2, rtol=1e-3)
    with pytest.raises(TrainError, match="takes inputs of 3 x 64 x 64, not of 3 x 96 x 96"):
        Model(tmp_path / "plain.onnx").predict(image, imgsz=96)
    assert len(Model(tmp_path / "half.onnx").predict(image)) == 1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="not installed: openvino")
@pytest.mark.filterwarnings("ignore")
def test_openvino_says_what_the_network_says(tmp_path):
    import openvino

    model = known(DIGITS, "digits", "classify")
    path = model.export("openvino", tmp_path / "net.xml")
    assert path.with_suffix(".bin").is_file()
    run = openvino.compile_model(str(path), "CPU")
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(run(x.numpy())[0]), model.network(x), atol=1e-4, rtol=1e-3
        )


def test_half_weights_are_loaded_again(tmp_path):
    model = known(DIGITS, "digits", "classify")
    again = Model(model.export("safetensors", tmp_path / "half.safetensors", half=True))
    assert (tmp_path / "half.safetensors").stat().st_size > 0
    for name, value in again.network.state_dict().items():
        torch.testing.assert_close(
            value.float(), model.network.state_dict()[name].float(), atol=1e-3, rtol=1e-2
        )
    assert isinstance(again.network, nn.Module) and len(again.predict(CASES[0][2])) == 1
