"""Hostile files of every kind that unvanish reads, each given to a command in a process of its own.

    python -m tests.fuzz.files --count 1000 --seed 0 [--kind weights] [--only 17]

Notable:
- A case fails if there is a traceback or "a bug in unvanish", if it computes for more than ten seconds, if
  code of the file or of a module in the current folder runs, if it takes a gigabyte, or if a file appears
  outside.
- Processes are forked after the imports, so most cases take a few hundredths of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from tests.fuzz import mutations as hurt
from torch import nn

from unvanish.clinic.prescription import Prescription, PrescriptionError
from unvanish.clinic.prescription import apply as apply_prescription
from unvanish.core.diagnosis import Evidence, Finding
from unvanish.core.trace import Site
from unvanish.cures import cures
from unvanish.lab.models.names import FOLDER
from unvanish.store import Store
from unvanish.surgery.receipt import SurgeryError
from unvanish.train import Model
from unvanish.train.checkpoint.file import save

SECONDS, PATIENCE = 10.0, 40.0  # of computing; in all, as others may use the machine too
GIGABYTE = 1_000_000  # kilobytes
FAULTS = ("Traceback (most recent call last)", "this is a bug in unvanish")
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


@dataclass(frozen=True)
class Outcome:
    """How a case ended: the fault, or an empty text; seconds; kilobytes."""

    fault: str
    seconds: float
    kilobytes: int
    text: str = ""


# -- good files, made once


def prepare(folder: Path) -> None:
    """Good files of every kind."""
    rng = np.random.default_rng(0)
    (folder / "net.py").write_text(NET)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    facts = {"classes": 3, "channels": 3, "size": 16}
    torch.manual_seed(0)
    net = Model(dict(TINY)).build(**facts)
    about = {
        "format": 1,
        "name": "tiny",
        "task": "classify",
        "spec": TINY,
        "facts": facts,
        "names": ["a", "b", "c"],
        "preparation": {
            "input": "image",
            **facts,
            "mean": [0.5] * 3,
            "std": [0.2] * 3,
            "names": ["a", "b", "c"],
        },
        "data": "digits.yaml",
        "metrics": {"accuracy": 0.5},
        "best": 0.5,
        "epoch": 1,
    }
    save(folder / "w.safetensors", net.state_dict(), about)
    words = {
        "task": "sentiment",
        "layers": [
            {"module": "Embedding", "width": 8},
            {"module": "Recurrent", "width": 8},
            {"module": "Readout", "how": "last"},
        ],
    }
    told = {"classes": 2, "vocabulary": 6, "length": 5}
    text_about = {
        "name": "words",
        "task": "sentiment",
        "spec": words,
        "facts": told,
        "names": ["bad", "good"],
        "preparation": {
            "input": "text",
            "vocabulary": {"sort": "words", "lower": True, "entries": ["good", "bad"]},
        },
    }
    save(folder / "t.safetensors", Model(dict(words)).build(**told).state_dict(), text_about)
    torch.save(net.state_dict(), folder / "w.pt")
    torch.save((torch.randn(8, 4), torch.randint(0, 2, (8,))), folder / "batch.pt")
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    torch.save(
        {
            "step": 3,
            "code": "NUM001",
            "args": (torch.randn(8, 4),),
            "kwargs": {},
            "target": torch.randint(0, 2, (8,)),
            "loss": "CrossEntropyLoss",
            "weights": model.state_dict(),
            "random": {"cpu": torch.get_rng_state(), "cuda": []},
        },
        folder / "snapshot.pt",
    )
    for name in ("p.png", "p.jpg", "p.gif", "p.tif", "p.bmp", "p.webp", "p.ppm"):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / name)
    for part in ("train", "val"):
        (folder / "yolo" / "images" / part).mkdir(parents=True)
        (folder / "yolo" / "labels" / part).mkdir(parents=True)
        for i in range(3):
            shutil.copy(folder / "p.jpg", folder / "yolo" / "images" / part / f"{i}.jpg")
            (folder / "yolo" / "labels" / part / f"{i}.txt").write_text(
                "0 0.5 0.5 0.2 0.2\n1 0.3 0.3 0.1 0.4\n"
            )
            for name in "ab":
                (folder / "classes" / part / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / "p.png", folder / "classes" / part / name / f"{i}.png")
    store = Store(folder / "run", pause=0.01)
    axes = [{"name": "depth", "kind": "depth", "sites": [1, 0]}]
    store.describe(model="Net", axes=axes, overhead=0.01, looks=2)
    store.sites([Site("a", "linear"), Site("b", "relu")], ("backward_log", "update_log", "forward_rms"))
    store.steps({"step": i, "wall": float(i), "loss": 1.0, "finite": 1, "lr": 0.1} for i in range(9))
    for step in (0, 4, 8):
        store.sample(step, np.full((2, 3), -1.0))
        store.profile(step, "rnn", np.zeros(7))
    store.finding(
        1, 0, 2, Finding("ACT001", "saturated", "warning", "because", ("a",), (Evidence("x", 1.0),))
    )
    store.close()


# -- cases: each changes files in the current folder, and says what is called


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


# -- one case in a process of its own


def act(command: Command) -> int:
    """Run a command as the command line does; the exit code."""
    if callable(command):
        command()
        return 0
    from unvanish.cli import main

    sys.argv = ["unvanish", *command]
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2 if stop.code else 0
    return 0


def run_case(good: Path, kind: str, seed: str, work: Path) -> tuple[Outcome, Command]:
    """A case in a forked process, and how it ended."""
    folder = work / "here"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(good, folder)
    (folder / f"{hurt.CANARY}.py").write_text(f"open({str(folder / hurt.MARK)!r}, 'w').write('x')\n")
    os.chdir(folder)
    rng = random.Random(seed)
    command = KINDS[kind](rng)
    before = {p for p in work.iterdir()}
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_a_case(folder, command)
    status, used = None, None
    while status is None:
        found, code, usage = os.wait4(pid, os.WNOHANG)
        if found:
            status, used = code, usage
        elif time.monotonic() - begun > PATIENCE:
            os.kill(pid, signal.SIGKILL)
            _, status, used = os.wait4(pid, 0)
        else:
            time.sleep(0.01)
    seconds = time.monotonic() - begun
    text = (work / "out").read_text(errors="replace") if (work / "out").exists() else ""
    assert used is not None
    fault = _judge(status, used.ru_utime + used.ru_stime, seconds, used.ru_maxrss, text, folder)
    strangers = {p.name for p in work.iterdir()} - {p.name for p in before} - {"out", "cache"}
    fault = fault or (f"a file outside: {sorted(strangers)}" if strangers else "")
    os.chdir(good)
    return Outcome(fault, used.ru_utime + used.ru_stime, used.ru_maxrss, text[-1500:]), command


def _be_a_case(folder: Path, command: Command) -> None:
    """The forked process: the command, its output in a file; never returns."""
    code = 99
    try:
        handle = os.open(folder.parent / "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.environ["UNVANISH_CACHE"] = str(folder.parent / "cache")
        sys.path.insert(0, str(folder))  # as `python -m`, a notebook and pytest have it
        code = act(command)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _judge(status: int, computed: float, seconds: float, kilobytes: int, text: str, folder: Path) -> str:
    if (folder / hurt.MARK).exists():
        return "code ran"
    if computed > SECONDS or seconds > PATIENCE:
        return f"took {computed:.0f} s of computing, {seconds:.0f} s in all"
    if any(fault in text for fault in FAULTS):
        return "traceback"
    if os.WIFSIGNALED(status):
        return f"died of signal {os.WTERMSIG(status)}"
    if os.WEXITSTATUS(status) not in (0, 1, 2):
        return f"exit code {os.WEXITSTATUS(status)}"
    if kilobytes > GIGABYTE:
        return f"took {kilobytes / 1e6:.2f} GB"
    if os.WEXITSTATUS(status) == 2 and not text.strip():
        return "refused without a word"
    return ""


def fuzz(count: int, seed: int, kinds: list[str], only: int | None = None, verbose: bool = False) -> int:
    """Run cases and report; the number of those that failed."""
    import unvanish.reports.run.html
    import unvanish.train.session  # noqa: F401 (loaded before the forks)

    faults: list[str] = []
    tally: Counter[str] = Counter()
    slowest = largest = 0.0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        good, work = Path(top) / "good", Path(top) / "work"
        good.mkdir()
        prepare(good)
        for number in range(count) if only is None else [only]:
            kind = kinds[number % len(kinds)]
            outcome, command = run_case(good, kind, f"{seed}:{number}:{kind}", work)
            tally[kind] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.kilobytes)
            shown = " ".join(command) if isinstance(command, list) else kind
            if outcome.fault:
                faults.append(
                    f"--seed {seed} --only {number} --kind {','.join(kinds)}: {outcome.fault} ({shown})"
                )
                print(faults[-1], outcome.text if verbose else "", sep="\n", flush=True)
            elif verbose and only is not None:
                print(shown, outcome)
        os.chdir("/")
    counted = ", ".join(f"{number} {kind}" for kind, number in tally.items())
    print(
        f"{sum(tally.values())} hostile files ({counted}), seed {seed}: "
        f"{len(faults)} faults; slowest {slowest:.1f} s, largest {largest / 1e6:.2f} GB"
    )
    return len(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default=",".join(KINDS))
    parser.add_argument("--only", type=int)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(min(1, fuzz(given.count, given.seed, given.kind.split(","), given.only, given.verbose)))


if __name__ == "__main__":
    main()
