"""`--json` of every command: one document, strict, as the shipped schema says, and alone on stdout."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import nn
from typer.testing import CliRunner

import unvanish
from unvanish.cli import app, verbs
from unvanish.cli.errors import CallError
from unvanish.core.registry import modules
from unvanish.reports.documents import find_documents

DOCUMENTS = find_documents()
SILENT = {"demo", "schema", "mcp"}  # they tell a story, print schemas, talk a protocol

NETS = """
import torch
from torch import nn
print("an import that prints")

def well():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

def sick():
    torch.manual_seed(0)
    return nn.Sequential(*[p for _ in range(14) for p in (nn.Linear(6, 6), nn.Sigmoid())], nn.Linear(6, 3))

def data():
    print("data that prints")
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, 6, generator=generator), torch.randint(3, (64,), generator=generator)
"""

SMALL = """
task: classify
classes: 10
channels: 3
layers:
  - {name: stem, module: Conv, out: 8, kernel: 3, stride: 2}
  - {name: head, module: ClassifyHead}
"""

SCRIPT = """
import torch
model = torch.nn.Linear(3, 3)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(6):
    optimizer.zero_grad()
    model(torch.ones(2, 3)).square().mean().backward()
    optimizer.step()
print("the script says")
"""


def read(text: str):
    """The document of a text, checked against the schema of its name; NaN and Infinity are refused."""
    document = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    known = {d.NAME: d for d in DOCUMENTS.values()}
    Draft202012Validator(known[document["schema"]].SCHEMA).validate(document)
    assert document["version"] == unvanish.__version__ and text.isascii()
    return document


def call(*words: object, code: int = 0):
    """What a command prints, as a document."""
    answer = CliRunner().invoke(app, [*map(str, words)])
    assert answer.exit_code == code, (answer.output, answer.exception)
    return read(answer.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("nets")
    (place / "nets_of_json.py").write_text(NETS)
    for name, bad in (("a", -1), ("b", 5)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with unvanish.watch(model, optimizer, run=place / name, on_finding="silent", every=4):
            for step in range(12):
                optimizer.zero_grad()
                model(torch.ones(4, 6) * (float("nan") if step == bad else 1.0)).square().mean().backward()
                optimizer.step()
    yield place
    sys.path[:] = [p for p in sys.path if p != str(place)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_file_is_a_document(name):
    document = DOCUMENTS[name]
    assert f"unvanish.{name}/1" == document.NAME and document.SCHEMA["properties"]["schema"] == {
        "const": document.NAME
    }
    Draft202012Validator.check_schema(document.SCHEMA)
    assert callable(document.build) and document.__doc__
    answer = CliRunner().invoke(app, ["schema", name])
    assert json.loads(answer.stdout) == document.SCHEMA


def test_the_schemas_are_listed_and_a_wrong_name_is_corrected():
    lines = CliRunner().invoke(app, ["schema"]).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [document.NAME for document in DOCUMENTS.values()]
    assert not any(line.count("`") % 2 or line.endswith("diagnosis") for line in lines)  # whole sentences
    assert CliRunner().invoke(app, ["schema", "unvanish.run/1"]).exit_code == 0
    with pytest.raises(CallError, match="did you mean"):
        CliRunner().invoke(app, ["schema", "diagnosys"], catch_exceptions=False)
    with pytest.raises(CallError, match="there is no document"):
        CliRunner().invoke(app, ["schema", "unvanish.run/2"], catch_exceptions=False)


@pytest.mark.parametrize(
    "name", [name for name, _ in modules(verbs.__name__, verbs.__path__) if name not in SILENT]
)
def test_every_command_that_prints_a_result_has_json(name):
    text = Path(verbs.__path__[0], f"{name}.py").read_text(encoding="utf-8")
    assert "options.Json" in text or 'given.pop("json"' in text


def test_check_and_forecast(folder):
    net = folder / "nets_of_json.py"
    found = call(
        "check", f"{net}:sick", "--data", f"{net}:data", "--loss", "cross_entropy", "--json", "-", code=1
    )
    assert found["findings"] and not found["healthy"]
    assert call("forecast", f"{net}:well", "--input", 6, "--json", "-")["healthy"]


def test_cure(folder, tmp_path):
    net, file = folder / "nets_of_json.py", tmp_path / "cure.yaml"
    words = ["cure", f"{net}:sick", "--data", f"{net}:data", "--loss", "cross_entropy", "--steps", 8]
    answer = CliRunner().invoke(app, [*map(str, words), "--json", "-", "--out", str(file)])
    found = read(answer.stdout)
    assert answer.exit_code == (0 if found["success"] else 1)
    assert found["before"]["findings"] and found["attempts"]
    if found["prescription"]:
        assert file.read_text() == found["prescription"] and found["code"] and found["remedies"]


def test_a_healthy_model_needs_no_cure(folder):
    net = folder / "nets_of_json.py"
    found = call("cure", f"{net}:well", "--data", f"{net}:data", "--loss", "cross_entropy", "--json", "-")
    assert found["verdict"] == "healthy" and found["prescription"] is None and found["proof"] is None


def test_show_and_compare(folder, tmp_path):
    shown = call("show", folder / "b", "--json", "-")
    assert shown["steps"] == {"count": 12, "first": 0, "last": 11, "not_finite": 7, "skipped": 0}
    assert shown["findings"][0]["finding"]["code"] == "NUM001" and len(shown["history"]["loss"]) == 12
    assert shown["history"]["loss"][5] is None and shown["loss"]["first"] == shown["history"]["loss"][0]
    both = call("compare", folder / "a", folder / "b", "--json", "-")
    assert both["codes"]["NUM001"] == [None, 5] and both["runs"][1] == shown
    answer = CliRunner().invoke(app, ["show", str(folder / "a"), "--json", str(tmp_path / "a.json")])
    assert "unvanish: run a" in answer.stdout and read((tmp_path / "a.json").read_text())["name"] == "a"


def test_show_tells_a_finished_run_to_sinks(folder, tmp_path):
    answer = CliRunner().invoke(app, ["show", str(folder / "b"), "--to", f"jsonl:{tmp_path / 'b.jsonl'}"])
    assert answer.exit_code == 0 and "told 12 steps to jsonl" in answer.stderr
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert kinds.count("step") == 12 and "finding" in kinds
    with pytest.raises(CallError, match=r"--to='jsonm' is no sink .did you mean 'jsonl'"):
        CliRunner().invoke(app, ["show", str(folder / "b"), "--to", "jsonm"], catch_exceptions=False)


def test_what_a_watch_without_a_folder_saw_is_a_run():
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with unvanish.watch(model, optimizer, on_finding="silent") as watch:
        for _ in range(20):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().mean().backward()
            optimizer.step()
    text = json.dumps(DOCUMENTS["run"].build(watch.sight()))
    found = read(text)
    assert found["folder"] is None and found["steps"]["count"] == 20 and found["findings"][0]["first"] >= 0
    failed = DOCUMENTS["run"].build(replace(watch.sight(), failure="OSError: no space"))
    assert failed["verdict"] == "unseen" and "no space" in failed["summary"]  # what was not seen is not fine


def test_rules_cures_and_their_pages():
    listed = call("rules", "--json", "-")["entries"] + call("cures", "--json", "-")["entries"]
    for entry in listed[:3] + listed[-3:]:
        page = call("explain", entry["code"] or entry["name"], "--json", "-")
        assert entry == {key: page[key] for key in entry} and len(page["page"]) > 100
    assert call("rules", listed[0]["code"], "--json", "-")["code"] == listed[0]["code"]


def test_zoo_and_phase(tmp_path):
    small = call("zoo", "relu-cnn", "--sizes", "--json", "-")["networks"]
    assert small and all(entry["parameters"] > 0 for entry in small)
    found = call("phase", "--activation", "tanh", "--depth", 30, "--json", "-")
    assert found["start"]["depth"] == 30 and found["critical"][0]["sw"] == pytest.approx(1.0, abs=0.05)
    file = tmp_path / "phase.json"
    answer = CliRunner().invoke(app, ["phase", "--activation", "relu", "--json", str(file)])
    assert "critical line" in answer.stdout and read(file.read_text())["activation"]


def test_train_val_predict_export(tmp_path, monkeypatch):
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    Path("small.yaml").write_text(SMALL)
    words = ("model=small.yaml", "data=digits.yaml", "epochs=1", "plots=false", "batch=256", "device=cpu")
    made = call("train", *words, "--json", "-")
    assert made["epochs"] == 1 and Path(made["last"]).is_file() and made["metrics"]
    weights = made["last"]
    assert call("val", f"model={weights}", "json=-", "device=cpu")["metrics"].keys() == made["metrics"].keys()
    assert (
        call("export", f"model={weights}", "format=safetensors", "path=a.safetensors", "json=-")["bytes"] > 0
    )
    from PIL import Image

    Image.new("L", (8, 8)).save("one.png")
    answer = CliRunner().invoke(app, ["predict", f"model={weights}", "source=one.png", "json=-"])
    assert answer.exit_code == 0, answer.exception
    assert read(answer.stdout)["entries"][0]["confidence"] > 0


def test_run_writes_what_it_saw_of_each_model(tmp_path, command):
    (tmp_path / "train.py").write_text(SCRIPT)
    done = command("run", "--json", "run.json", "--to", "jsonl:rows.jsonl", "train.py")
    assert done.returncode == 0 and "the script says" in done.stdout
    found = read((tmp_path / "run.json").read_text())
    assert found["exit_code"] == 0 and found["runs"][0]["steps"]["count"] == 6
    assert (tmp_path / "rows.jsonl").read_text().count('"kind": "step"') == 6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rules", "--json", "rules.txt"], "must end in .json"),
        (["check", "resnet20.yaml", "--json", ""], "must end in .json"),
        (["explain", "OPT001", "--json", "nowhere/a.json"], "there is no folder"),
        (["val", "model=a.safetensors", "--json"], "names no file"),
        (["predict", "model=a", "source=b", "json=a.json"], "a line for each prediction"),
        (["run", "--json", "-", __file__], "share stdout with the script"),
    ],
)
def test_a_wrong_place_is_one_line_before_the_work(words, told):
    with pytest.raises(CallError, match=told) as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert "\n" not in str(caught.value)
