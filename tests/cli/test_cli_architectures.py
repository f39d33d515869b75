"""hf: and timm: build published architectures from a configuration, with a batch that suits them."""

from __future__ import annotations

import json

import pytest

TIMM = """
from torch import nn

def list_models():
    return ["resnet18", "vit_tiny"]

def is_model(name):
    return name in list_models()

def create_model(name, pretrained=False, **options):
    classes = options.get("num_classes", 10)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, classes))
    model.default_cfg = {"input_size": (3, 4, 4)}
    return model
"""
SMALL = {
    "gpt2,n_layer=2,n_embd=32,n_head=2,vocab_size=99": "ids below 99, shape (8, 32)",
    "bert,num_hidden_layers=2,hidden_size=32,num_attention_heads=2,vocab_size=99": "ids below 99",
    "t5,num_layers=2,d_model=32,d_ff=64,num_heads=2,d_kv=16,vocab_size=99": "ids below 99",
    "vit,num_hidden_layers=2,hidden_size=32,num_attention_heads=2,image_size=32": "shape (8, 3, 32, 32)",
}


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


@pytest.mark.parametrize(("name", "expected"), SMALL.items())
def test_a_model_type_with_its_own_batch(transformers, call, name, expected):
    answer = call("check", f"hf:{name}", "--no-confirm", "--fail-on", "never")
    assert (answer.code, answer.err) == (0, "")
    assert expected in " ".join(answer.out.split())
    assert "the labels are" in answer.out


def test_input_sets_the_number_of_tokens(transformers, call):
    name = "hf:gpt2,n_layer=2,n_embd=32,n_head=2,vocab_size=99"
    answer = call("check", name, "--no-confirm", "--input", "5", "--batch-size", "3", "--fail-on", "never")
    assert "shape (3, 5)" in " ".join(answer.out.split())


def test_a_local_configuration(transformers, call, folder):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 99}
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], **small}
    (folder / "config.json").write_text(json.dumps(config))
    for name in (".", "config.json"):
        answer = call("check", f"hf:{name}", "--no-confirm", "--fail-on", "never")
        assert answer.code == 0
        assert "the labels are random" in answer.out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gptt2", ["'gptt2' is not a model type of Transformers", "did you mean 'gpt2'"]),
        ("openai/gpt2", ["names on the hub are not downloaded"]),
        ("gpt2,n_layers=2", ["GPT2Config has no option 'n_layers'", "did you mean 'n_layer'"]),
        ("gpt2,n_layer", ["'n_layer' is not an option; write hf:gpt2,key=value"]),
        ("gpt2,n_head=7", ["building GPT2Config raised ValueError"]),
        ("no/config.json", ["there is no file no/config.json"]),
        ("llama,num_hidden_layers=3200", ["billion parameters", "make it smaller"]),
        ("", ["hf: names no model; write hf:gpt2"]),
    ],
)
def test_a_mistake_is_reported_in_one_line(transformers, call, name, expected):
    answer = call("check", f"hf:{name}")
    assert (answer.code, answer.out) == (2, "")
    for part in expected:
        assert part in answer.line


@pytest.mark.parametrize(("kind", "library"), [("hf", "transformers"), ("timm", "timm")])
def test_a_missing_library_is_named(call, monkeypatch, kind, library):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    answer = call("check", f"{kind}:gpt2")
    assert answer.code == 2
    assert f"pip install 'unvanish[{kind}]'" in answer.line


def test_timm(call, folder, monkeypatch):
    (folder / "timm.py").write_text(TIMM)
    monkeypatch.syspath_prepend(folder)
    answer = call("check", "timm:resnet18,num_classes=4", "--fail-on", "never")
    assert (answer.code, answer.err) == (0, "")
    assert "standard normal, shape (8, 3, 4, 4)" in " ".join(answer.out.split())
    assert "did you mean 'resnet18'" in call("check", "timm:resnet81").line
