"""Hostile files of each kind: a function changes files in the current folder, and says what is called."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from tests.fuzz import mutations as hurt

from unvanish.clinic.prescription import Prescription, PrescriptionError
from unvanish.clinic.prescription import apply as apply_prescription
from unvanish.cures import cures
from unvanish.lab.models.names import FOLDER
from unvanish.surgery.receipt import SurgeryError

TINY = {
    "task": "classify",
    "activation": "relu",
    "layers": [{"name": "stem", "module": "Conv", "out": 4}, {"name": "head", "module": "ClassifyHead"}],
}
NET = """from torch import nn
def build():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
"""
DETECT = {
    "task": "detect",
    "backbone": [[-1, 1, "Conv", [4, 3, 8]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]],
    "head": [[[0, 1, 2], 1, "Detect", ["nc"]]],
}
Command = list[str] | Callable[[], None]


def write_yaml(name: str, tree: Any, rng: random.Random, raw: bytes | None = None) -> None:
    """A YAML that is changed in its values, in its bytes, or is a bomb."""
    how = rng.random()
    text = raw if raw is not None else yaml.safe_dump(tree, sort_keys=False).encode()
    if how < 0.55:
        text = yaml.safe_dump(hurt.change_tree(tree, rng), sort_keys=False, allow_unicode=True).encode(
            "utf-8", "replace"
        )
    elif how < 0.9:
        text = hurt.change_bytes(text, rng)
    else:
        text = hurt.bomb(rng).encode() + text
    Path(name).write_bytes(text)


def model_yaml(rng: random.Random) -> Command:
    names = ("resnet", "gru-digits", "yolo11", "transformer-lm", "vanilla", "gru-copy", "lstm-adding", "mlp")
    files = [FOLDER / f"{n}.yaml" for n in names if (FOLDER / f"{n}.yaml").is_file()]
    tree = yaml.safe_load(rng.choice(files).read_text()) if rng.random() < 0.5 else TINY
    if "backbone" in tree:
        tree["size"] = 64  # at its usual size an honest detector takes its honest memory
    write_yaml("x.yaml", tree, rng)
    calls = (
        ["check", "x.yaml", "--no-confirm", "--batch-size", "2"],
        ["forecast", "x.yaml", "--batch-size", "2"],
        [
            "train",
            "model=x.yaml",
            "data=digits.yaml",
            "epochs=1",
            "fraction=0.05",
            "plots=false",
            "watch=false",
            "project=runs",
        ],
    )
    return list(rng.choice(calls))


def data_yaml(rng: random.Random) -> Command:
    trees = [
        {"kind": "folder", "path": "classes", "train": "train", "val": "val"},
        {"path": "yolo", "train": "images/train", "val": "images/val", "names": {0: "a", 1: "b"}},
        {"kind": "adding", "length": 20, "samples": 64, "val_samples": 8},
        {"kind": "copying", "pause": 5},
        {"kind": "shapes", "samples": 8, "val_samples": 4, "size": 16},
        {"kind": "text", "train": "t.txt", "length": 8},
        {"kind": "table", "train": "t.csv", "task": "sentiment"},
        {"kind": "pixels", "of": "digits.yaml"},
        {"kind": "digits", "download": {"url": "http://127.0.0.1:9/x.tgz", "to": "x.tgz", "sha256": "00"}},
        {"kind": "idx", "path": "/etc", "download": [{"url": "http://127.0.0.1:9/x"}]},
    ]
    Path("t.txt").write_text("to be or not to be, that is the question. " * 30)
    Path("t.csv").write_text("text,label\n" + "so good,1\nso bad,0\n" * 20)
    write_yaml("d.yaml", rng.choice(trees), rng)
    return [
        "check",
        rng.choice(["tiny.yaml", "gru-adding.yaml", "yolo11n.yaml"]),
        "--data",
        "d.yaml",
        "--no-confirm",
    ]


def weights(rng: random.Random) -> Command:
    name = rng.choice(("w.safetensors", "w.safetensors", "t.safetensors"))
    if rng.random() < 0.75:
        hurt.change_header(Path(name), rng)
    else:
        Path(name).write_bytes(hurt.change_bytes(Path(name).read_bytes(), rng))
    source = "p.png" if name == "w.safetensors" else "a good film"
    calls = (
        ["predict", f"model={name}", f"source={source}"],
        ["predict", f"model={name}", f"source={source}"],
        ["export", f"model={name}", "format=safetensors", "path=out.safetensors"],
        ["export", f"model={name}", "format=safetensors"],
        ["val", f"model={name}", "data=digits.yaml", "fraction=0.05"],
        ["check", "tiny.yaml", "--data", name],
        ["train", f"resume={name}"],
        [
            "train",
            "model=tiny.yaml",
            "data=digits.yaml",
            f"pretrained={name}",
            "epochs=1",
            "fraction=0.05",
            "plots=false",
            "project=runs",
        ],
    )
    return list(rng.choice(calls))


class Evil:
    """What a pickle may hold."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> Any:
        return self.call, self.args


def nested(count: int) -> Any:
    value: Any = [torch.ones(1)]
    for _ in range(count):
        value = [value, value]
    return value


def pickled(rng: random.Random) -> Command:
    name = rng.choice(("w.pt", "batch.pt", "snapshot.pt"))
    how = rng.random()
    content = torch.load(name, weights_only=True)
    if how < 0.4:
        torch.save(hurt.change_tree(content, rng), name)
    elif how < 0.65:
        Path(name).write_bytes(hurt.change_bytes(Path(name).read_bytes(), rng))
    elif how < 0.75:
        call = rng.choice(((os.system, f"touch {hurt.MARK}"), (eval, f"open({hurt.MARK!r}, 'w')")))
        torch.save({"x": Evil(*call), "weights": {}, "args": ()}, name)
    elif how < 0.8:
        Path(name).write_bytes(pickle.dumps(Evil(os.system, f"touch {hurt.MARK}")))
    else:
        wide = torch.ones(1).expand(10**9)
        torch.save(
            rng.choice(
                (wide, (wide, wide), {"a": wide}, nested(40), nested(3), torch.ones(2, 2).to_sparse())
            ),
            name,
        )
    calls = {
        "w.pt": [
            "train",
            "model=tiny.yaml",
            "data=digits.yaml",
            "pretrained=w.pt",
            "epochs=1",
            "fraction=0.05",
            "plots=false",
            "project=runs",
        ],
        "batch.pt": [
            "check",
            "net.py:build",
            "--data",
            "batch.pt",
            "--no-confirm",
            "--loss",
            "cross_entropy",
        ],
        "snapshot.pt": ["check", "net.py:build", "--snapshot", "snapshot.pt", "--no-confirm"],
    }
    return calls[name]


def run_file(rng: random.Random) -> Command:
    file = Path("run/run.sqlite")
    if rng.random() < 0.7:
        hurt.change_tables(file, rng)
    else:
        file.write_bytes(hurt.change_bytes(file.read_bytes(), rng))
    calls = (
        ["show", "run"],
        ["show", "run"],
        ["compare", "run", "run"],
        ["show", "run", "--export", "t.csv"],
        ["show", "run", "--export", "t.jsonl"],
        ["show", "run", "--html", "r.html"],
    )
    return list(rng.choice(calls))


def prescription(rng: random.Random) -> Command:
    name = rng.choice(list(cures()))
    case, remedy = cures()[name].case()
    tree = yaml.safe_load(Prescription((remedy,), {"model": "Net", "parameters": 3, "hash": "x"}).yaml())
    write_yaml("cure.yaml", tree, rng)

    def call() -> None:
        try:
            read = Prescription.load("cure.yaml")
            code = read.code()
            assert hurt.MARK not in [line.strip() for line in code.splitlines()]
            optimizer = torch.optim.Adam(case.model.parameters())
            apply_prescription(
                case.model, read, optimizer=optimizer, batch=case.batch, loss=case.loss, force=True
            )
        except (PrescriptionError, SurgeryError) as error:
            assert "\n" not in str(error)

    return call


def labels(rng: random.Random) -> Command:
    file = rng.choice(sorted(Path("yolo/labels").rglob("*.txt")))
    odd = [
        "nan nan nan nan nan",
        "0 1e400 0 0 0",
        "9" * 500,
        "-1 0.5 0.5 0.1 0.1",
        "0 0.5 0.5 0 0",
        "0 " + "0.1 0.2 " * 5000,
        "0 0.1 0.1 0.9 0.1 0.5 0.9",
        "a b c d e",
        "0",
        "1e300 0.5 0.5 0.1 0.1",
        "0.5 0.5 0.5 0.5 0.5",
    ]
    if rng.random() < 0.5:
        rows = [rng.choice(odd) for _ in range(rng.choice((1, 3, 9)))]
        file.write_text("\n".join(rows * rng.choice((1, 1, 3000 if len(rows[0]) < 50 else 1))))
    else:
        file.write_bytes(hurt.change_bytes(file.read_bytes(), rng))
    tree = {"path": "yolo", "train": "images/train", "val": "images/val", "names": {0: "a", 1: "b"}}
    Path("d.yaml").write_text(yaml.safe_dump(tree))
    Path("detect.yaml").write_text(yaml.safe_dump(DETECT))
    return ["check", "detect.yaml", "--data", "d.yaml", "--no-confirm", "--batch-size", "1"]


def picture(rng: random.Random) -> Command:
    name = rng.choice([p.name for p in Path().glob("p.*")])
    content = Path(name).read_bytes()
    if rng.random() < 0.2:  # a size that it has not
        content = content.replace(
            (24).to_bytes(4, "big"), rng.choice((0, 10**6, 2**31)).to_bytes(4, "big"), 1
        )
    elif rng.random() < 0.1:
        content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(RAN) (w) file\n"
    else:
        content = hurt.change_bytes(content, rng)
    Path(name).write_bytes(content)
    if rng.random() < 0.5:
        return ["predict", "model=w.safetensors", f"source={name}"]
    shutil.copy(name, Path("classes/train/a") / f"9{Path(name).suffix}")
    Path("d.yaml").write_text("kind: folder\npath: classes\ntrain: train\nval: val\n")
    return ["check", "tiny.yaml", "--data", "d.yaml", "--no-confirm"]


def packed(rng: random.Random) -> Command:
    name = rng.choice(("a.zip", "a.tar.gz"))
    good = {p.relative_to("classes").as_posix(): p.read_bytes() for p in Path("classes").rglob("*.png")}
    hurt.make_archive(Path(name), good, rng)
    if rng.random() < 0.4:
        Path(name).write_bytes(hurt.change_bytes(Path(name).read_bytes(), rng))
    Path("d.yaml").write_text(f"kind: folder\npath: .\ntrain: train\nval: val\narchive: {name}\n")
    shutil.rmtree("classes")
    return ["check", "tiny.yaml", "--data", "d.yaml", "--no-confirm"]


def table(rng: random.Random) -> Command:
    rows = "text,label\n" + "so good,1\nso bad,0\nfine,1\nawful,0\n" * 10
    jsonl = "".join(
        json.dumps({"text": t, "label": k}) + "\n" for t, k in (("so good", 1), ("so bad", 0)) * 10
    )
    name = rng.choice(("t.csv", "t.tsv", "t.jsonl", "t.txt", "x.gz"))
    content = {"t.jsonl": jsonl, "t.tsv": rows.replace(",", "\t")}.get(name, rows).encode()
    content = hurt.change_bytes(content, rng)
    kind = "text" if name == "t.txt" else "table"
    tree: dict[str, Any] = {"kind": kind, "path": ".", "train": name}
    if name == "x.gz":
        content = gzip.compress(content if rng.random() < 0.5 else bytes(300_000_000), 1)
        tree = {"kind": "lines", "path": ".", "files": [name, name]}
    Path(name).write_bytes(content)
    tree |= {"encoding": rng.choice(("utf-8", "utf-8", "utf-16", "idna", "zip", "nope", "utf-7"))}
    Path("d.yaml").write_text(yaml.safe_dump(tree))
    model = "deepnorm-lm.yaml" if kind == "text" else "gru-sentiment.yaml"
    return ["check", model, "--data", "d.yaml", "--no-confirm"]


KINDS: dict[str, Callable[[random.Random], Command]] = {
    "model": model_yaml,
    "data": data_yaml,
    "weights": weights,
    "pickle": pickled,
    "run": run_file,
    "prescription": prescription,
    "labels": labels,
    "picture": picture,
    "packed": packed,
    "table": table,
}
