"""The grammar of command lines, drawn from the commands themselves, and the folder in which they are made.

Notable: options and their types are read from the commands, the arguments of a training from its fields; so
what is new is tried without an edit here. The values that fit and those that are hostile are lists.
"""

from __future__ import annotations

import os
import random
import shutil
import string
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import typer

import unvanish.cli
from unvanish.train.arguments import HINTS, Arguments

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.a, self.b = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))

class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(20, 4), nn.Linear(4, 3)

    def forward(self, ids, scale=1.0):
        return self.last(torch.relu(self.table(ids).mean(1)) * scale)

def deep():
    return nn.Sequential(*[p for _ in range(12) for p in (nn.Linear(6, 6), nn.Sigmoid())], nn.Linear(6, 3))

def batch():
    return torch.randn(8, 6), torch.randint(3, (8,))

def loader():
    return [batch(), batch()]

def empty():
    return []

def words():
    return ["a", "b"], 3

def three():
    return 3

def nothing():
    return None

def crash():
    raise ValueError("no width given\\nand a second line")

def leaving():
    raise SystemExit(7)

def my_loss(output, y):
    return nn.functional.cross_entropy(output, y)

def item_loss(output, y):
    return my_loss(output, y).item()

def vector_loss(output, y):
    return output

needs = lambda width: Net(width)
instance = Net()
number = 4
"""
TINY = """
task: classify
activation: relu
norm: none
init: critical
layers:
  - {name: stem, module: Conv, out: 4}
  - {name: head, module: ClassifyHead}
"""

PLACES = [
    "", "nowhere", "nowhere.yaml", "net.py", "folder", "folder.yaml", "empty.yaml", "broken.yaml",
    "broken.py",
    "secret.yaml", "secret.pt", "noise.pt", "noise.safetensors", "noise.yaml", "empty.pt", "state.pt",
    "batch.pt",
    "run", "empty_run", "noise_run", "broken.json", "/dev/null", "/dev/zero", "/", "..", "pipe", "x" * 5000,
    "a\\nb", "\x1b[2J", "ü", "\udcff", "~", "loop", "*", "--", "-", "a b", "'", "${HOME}", "{}", "[", ":",
    "a:b:c",
]  # fmt: skip
NUMBERS = [
    "0", "-1", "-3", "1", "2", "0.5", "1e-3", "1e20", "1e308", "1e400", "-1e20", "nan", "inf", "-inf", "",
    " ", "x",
    "1,2", "[0,1]", "[nan]", "[1e20]", "[[1]]", "[&a [*a]]", "9" * 400, "9" * 5000, "0x10", "1_0", "1e",
    "٣", "½",
    "true", "none", "2001-99-99", "[" * 500, "{a: 1}", "!!python/name:os.system", "1;2", "1 2", "+5", "1e18",
]  # fmt: skip
MODELS = [
    "net.py:Net", "net.py:deep", "net.py:Text", "net.py:instance", "net.py:three",
    "net.py:nothing",
    "net.py:crash", "net.py:leaving", "net.py:needs", "net.py:number", "net.py:Nte", "net.py:", "nte.py:Net",
    "net:Net", "nowhere:Net", "os:getcwd", "broken.py:x", "tiny.yaml", "resnet20.yaml", "timm:resnet18",
    "timm:",
    "hf:gpt2,n_layer=99999999", "hf:nope", "hf:gpt2,n_layer", "hf:broken.json", "timm:nope",
]  # fmt: skip
POOLS: dict[str, list[str]] = {
    "model": MODELS,
    "data": ["net.py:batch", "net.py:loader", "net.py:empty", "net.py:words", "net.py:three", "net.py:crash",
             "batch.pt", "state.pt", "digits.yaml", "digist.yaml", "net.py:nothing", "net.py:number"],
    "loss": ["cross_entropy", "mse_loss", "cros_entropy", "ctc_loss", "net.py:my_loss", "net.py:item_loss",
             "net.py:vector_loss", "net.py:three", "net.py:crash", "kl_div", "relu", "__import__"],
    "inputs": ["6", "3,8,8", "6,6", "16", "0", "-1", "1e3", "999999999", "99999,99999", "3x8x8", "3,,8", "६"],
    "dtype": ["float", "long", "half", "double", "int8", "complex64", "bfloat16", "object"],
    "select": ["ACT", "ACT001", "NOPE", "act,grf", ",", "ACT001,ACT001", "*"],
    "ignore": ["ACT", "NOPE", "", "GRF001"],
    "fail_on": ["note", "warning", "error", "never", "warn", "0"],
    "allow": ["exact", "retrain", "all", ""],
    "activation": ["tanh", "relu", "gelu", "silu", "tnah", "softmax", "identity"],
    "run": ["run", "trained", "run", "empty_run", "noise_run", "nowhere", "net.py", "run/run.sqlite"],
    "first": ["run", "nowhere"], "second": ["run", "noise_run"],
    "name": ["ACT001", "dead-units", "zero-bias", "ACT999", "nope", "act001"],
    "code": ["ACT999", "nope", "act0", "", "ACT"],
    "word": ["resnet", "nope", "", "tiny"],
    "html": ["r.html", "r.txt", "folder/r.html", "no/r.html", "folder.html", "link.html"],
    "json": ["r.json", "-", "r.html", "no/r.json"], "png": ["r.png", "r.svg", "r.gif"],
    "export": ["r.csv", "r.jsonl", "r.parquet", "r.xls", "no/r.csv"], "out": ["c.yaml", "c.txt", "no/c.yaml"],
    "snapshot": ["batch.pt", "snapshot.pt", "noise.pt"],
}  # fmt: skip
WORDS: dict[str, list[str]] = {
    "model": ["tiny.yaml", "tiny.yaml", "tiny.yaml", "resnet20.yaml", "best.safetensors", "best.safetensors",
              "resent20.yaml", "noise.safetensors", "net.py:Net", "state.pt"],
    "data": ["digits.yaml", "digits.yaml", "digist.yaml", "cifar10.yaml"],
    "source": ["picture.png", "net.py", "nowhere.png", "folder", "a text", "noise.yaml"],
    "format": ["onnx", "torchscript", "safetensors", "onxn", "pt"], "path": ["o.safetensors", "folder",
    "no/x.onnx"],
    "resume": ["true", "run", "nowhere", "trained", "false"], "task": ["classify", "nope", "detect", ""],
    "freeze": ["1", "-3", "[0]", "[99]", "99999999", "stem", "[stem]"], "device": ["cpu", "0", "cuda:x",
    "cpu:9", "-1"],
    "optimizer": ["sgd", "adamw", "nope"], "schedule": ["cosine", "step", "nope"], "name": ["x", "../x",
    "", "."],
    "project": ["out", "net.py", "folder", "/dev/null"], "depth": ["2", "-1", "1e9"], "width": ["2", "0",
    "1e9"],
    "norm": ["batch", "nope"], "init": ["xavier", "nope"], "activation": ["gelu", "nope"],
}  # fmt: skip
FLAGS = [
    "--help",
    "-h",
    "--nope",
    "--no-val",
    "--=1",
    "=",
    "epochs",
    "--epochs",
    "epoch=1",
    "--cos-lr",
    "-x",
    "a=b=c",
]
PLAUSIBLE = ["1", "2", "0.5", "8", "true", "false", "none"]
TRAINERS = ("train", "val", "predict", "export")
GOOD = (0.3, 0.8, 0.97)  # share of values from the pools, of which a call has one


def make_world(place: Path) -> None:
    """The user's folder: models, data, a run, saved weights, and files that are not what they seem."""
    place.mkdir()
    (place / "net.py").write_text(NET)
    (place / "tiny.yaml").write_text(TINY)
    (place / "broken.py").write_text("def x(:\n")
    (place / "broken.yaml").write_text("layers: [\n  - {")
    (place / "broken.json").write_text('{"model_type": "gpt2", ')
    for name in ("empty.yaml", "empty.pt"):
        (place / name).write_text("")
    noise = random.Random(0).randbytes(3000)
    for name in ("noise.pt", "noise.safetensors", "noise.yaml"):
        (place / name).write_bytes(noise)
    for name in ("folder", "folder.yaml", "folder.html", "empty_run", "noise_run"):
        (place / name).mkdir()
    (place / "noise_run" / "run.sqlite").write_bytes(noise)
    (place / "link.html").symlink_to("../above.html")
    (place / "loop").symlink_to("loop")
    os.mkfifo(place / "pipe")
    for name in ("secret.yaml", "secret.pt"):
        (place / name).write_text("x")
        (place / name).chmod(0)
    torch.save((torch.randn(8, 6), torch.randint(3, (8,))), place / "batch.pt")
    torch.save({"a.weight": torch.zeros(2, 2)}, place / "state.pt")
    torch.save({"weights": {}, "args": (torch.zeros(1),), "kwargs": {}}, place / "snapshot.pt")


def fill_world(place: Path) -> None:
    """The parts that a training makes; called in a child."""
    from PIL import Image

    from unvanish.train import Model

    os.chdir(place)
    Image.new("L", (8, 8), 99).save("picture.png")
    given = {"epochs": 1, "fraction": 0.1, "plots": False, "verbose": False}
    Model("tiny.yaml").train("digits.yaml", project=".", name="trained", **given)
    shutil.copyfile("trained/weights/best.safetensors", "best.safetensors")
    Path("run").mkdir()
    shutil.copyfile("trained/run.sqlite", "run/run.sqlite")
    Path("modules.txt").write_text("\n".join(sys.modules))


# -- the grammar


def list_options() -> dict[str, list[tuple[str, str, bool]]]:
    """By command: the name, the option ("" for an argument) and whether it is a flag, of all parameters."""
    command: Any = typer.main.get_command(unvanish.cli.app)
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for verb, made in command.commands.items():
        known = [p for p in made.params if p.name != "help"]
        found[verb] = [
            (p.name, "" if p.param_type_name == "argument" else p.opts[0], getattr(p, "is_flag", False))
            for p in known
        ]
    return found


class Case(random.Random):
    """The chances of one call, and the share of its values that are from the pools of values that fit."""

    good: float = 1.0


def draw_value(case: Case, pool: Sequence[str], numeric: bool) -> str:
    if case.good > 0.9 and case.random() < case.good:
        return case.choice(list(pool[:2]) or PLAUSIBLE)
    if pool and case.random() < case.good:
        return case.choice(list(pool))
    if case.random() < 0.1:
        return "".join(case.choices(string.printable.strip(), k=case.randint(1, 40)))
    wide = NUMBERS if numeric == (case.random() < 0.8) else PLACES
    return case.choice(wide)


def draw_pairs(case: Case, verb: str) -> list[str]:
    """Arguments of a training and its kin."""
    needed = {
        "train": ["model", "data"],
        "val": ["model"],
        "predict": ["model", "source"],
        "export": ["model"],
    }[verb]
    names = [n for n in needed if case.random() < 0.95]
    others = [f.name for f in fields(Arguments)] + [
        "format",
        "path",
        "depth",
        "width",
        "norm",
        "init",
        "activation",
    ]
    names += case.sample(others, case.choice([0, 0, 1, 1, 2, 3]))
    words = []
    for name in names:
        good = WORDS.get(name, [])
        if name == "model" and verb != "train":
            good = ["best.safetensors", *good]
        value = (
            good[0] if name in needed and case.random() < case.good else draw_value(case, good, name in HINTS)
        )
        words.append(f"{name}={value}" if case.random() < 0.85 else f"--{name.replace('_', '-')}")
        if words[-1].startswith("--"):
            words.append(value)
    if case.random() < 0.1:
        words.insert(case.randint(0, len(words)), case.choice(FLAGS))
    if verb == "train":
        words += ["fraction=0.1", "plots=false", "time=0.0001"]
    return words


def draw_options(case: Case, verb: str, known: Sequence[tuple[str, str, bool]]) -> list[str]:
    """Options of the other commands."""
    words: list[str] = []
    often = {"data": 0.5, "inputs": 0.4, "loss": 0.4}
    if case.good > 0.9:
        often = case.choice([{"data": 1.0, "loss": 0.9, "inputs": 0.0}, {"data": 0.0, "inputs": 1.0}])
        often["dtype"] = 0.0
    for name, option, flag in known:
        if option and case.random() > often.get(name, 0.15):
            continue
        if name in ("live", "sizes") or (not option and name != "code" and case.random() < 0.03):
            continue  # what runs for long by its nature: a server, the sizes of all networks, the long demo
        if flag:
            words.append(option)
            continue
        good = POOLS.get(name, [])
        numeric = name in ("seed", "batch_size", "steps", "budget", "power", "depth", "port", "inputs")
        value = draw_value(case, good, numeric)
        words += [option, value] if option else [value]
    if case.random() < 0.05:
        words.insert(case.randint(0, len(words)), case.choice(FLAGS))
    return words + (["--budget", "2", "--steps", "5"] if verb == "cure" and case.random() < 0.8 else [])


def draw_call(case: Case, options: dict[str, list[tuple[str, str, bool]]]) -> list[str]:
    """A command line."""
    case.good = case.choice(GOOD)
    if case.random() < 0.02:
        return case.choice([[], ["nope"], ["--version"], ["--help"], ["chekc", "net.py:Net"], [""], ["-x"]])
    verb = case.choice([*options, "train", "train", "check", "check", "cure"])
    words = draw_pairs(case, verb) if verb in TRAINERS else draw_options(case, verb, options[verb])
    return [verb, *(w.replace("\x00", "") for w in words)]
