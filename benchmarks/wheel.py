"""The wheel as its user gets it: built, installed beside torch alone, tried elsewhere, weighed and timed.

Run it with `python -m benchmarks.wheel --cache FOLDER`; `--train` also installs the extra and trains. The
environments stay in the cache; the wheel is built and installed anew. pip must reach what the build needs.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.peers.environments import ROOT, install, packages, pins

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, activation=nn.Sigmoid):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(*[part for _ in range(20) for part in (nn.Linear(16, 16), activation())])
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.body(x))


def data():
    torch.manual_seed(1)
    return torch.randn(64, 16), torch.randint(0, 4, (64,))
"""
SCRIPT = """
import torch
from net import Net, data

model = Net()
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
x, y = data()
for _ in range(40):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
"""
WATCHED = SCRIPT.replace(
    "x, y = data()",
    "import unvanish\nwatch = unvanish.watch(model, optimizer, on_finding='silent')\nx, y = data()",
) + ("watch.close()\nprint(*[finding.code for finding in watch.findings])\n")
GIVEN = ["net.py:Net", "--data", "net.py:data", "--loss", "cross_entropy"]
REPEATS = 9


@dataclass(frozen=True)
class Trial:
    """One thing that a user does: the call, the exit codes that are right, what must be in its words."""

    name: str
    call: tuple[str, ...]
    codes: tuple[int, ...]
    words: str


TRIALS = (
    Trial("check", ("-m", "unvanish", "check", *GIVEN), (1,), "ACT002"),
    Trial("cure", ("-m", "unvanish", "cure", *GIVEN), (0, 1), "cured"),
    Trial("forecast", ("-m", "unvanish", "forecast", "net.py:Net", "--input", "16"), (0, 1), "ACT002"),
    Trial("watch", ("watched.py",), (0,), "ACT002"),
    Trial("run", ("-m", "unvanish", "run", "script.py"), (0, 1), "ACT002"),
    Trial("zoo", ("-m", "unvanish", "check", "lstm-adding.yaml"), (0, 1), ""),
)
TRAIN = Trial(
    "train",
    ("-m", "unvanish", "train", "model=relu-cnn.yaml", "data=digits.yaml", "epochs=1"),
    (0,),
    "accuracy",
)


def build(folder: Path) -> Path:
    """The wheel of this tree."""
    call = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(call, check=True)
    (file,) = folder.glob("*.whl")
    return file


def fill(cache: Path, name: str, wheel: Path, extra: str = "") -> Path:
    """An environment with torch of our pin and this wheel; returns its Python."""
    place = install(cache / name, [f"torch=={pins()['torch']}"])
    if place.trouble:
        raise RuntimeError(place.trouble)
    wanted = f"unvanish{extra} @ {wheel.as_uri()}"
    limits = ["-c", str(ROOT / "constraints.txt")]
    pip = [str(place.python), "-m", "pip", "install", "-q", *limits]
    subprocess.run([*pip, wanted], check=True)
    subprocess.run([*pip, "--no-deps", "--force-reinstall", str(wheel)], check=True)
    return place.python


def attempt(python: Path, trial: Trial, folder: Path) -> tuple[bool, float, str]:
    """(whether it went as it should, seconds, its words)."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    began = time.perf_counter()
    said = subprocess.run(
        [str(python), *trial.call],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    text = said.stdout + said.stderr
    right = said.returncode in trial.codes and trial.words in text and "Traceback" not in text
    return right, time.perf_counter() - began, text


def weigh(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def time_import(python: Path, module: str, repeats: int) -> float:
    """Seconds of an import by Python's own clock (`-X importtime`), the least of several processes."""
    seen = []
    for _ in range(repeats):
        said = subprocess.run(
            [str(python), "-X", "importtime", "-c", f"import {module}"],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        (line,) = [row for row in said.splitlines() if re.search(rf"\| {re.escape(module)}$", row)]
        seen.append(int(line.split("|")[1]) / 1e6)
    return min(seen)


def time_command(python: Path, *call: str) -> float:
    """CPU seconds of a whole command, the median of several."""
    seen = []
    for _ in range(REPEATS):
        before = os.times()
        subprocess.run([str(python), *call], capture_output=True, check=True)
        after = os.times()
        seen.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    return statistics.median(seen)


def time_walls(python: Path, repeats: int = 30) -> tuple[float, float]:
    """Seconds by the wall's clock of a bare Python and of one that imports unvanish, in turn; the least."""
    seen: dict[str, list[float]] = {"pass": [], "import unvanish": []}
    for _ in range(repeats):
        for code, times in seen.items():
            began = time.perf_counter()
            subprocess.run([str(python), "-c", code], check=True)
            times.append(time.perf_counter() - began)
    return min(seen["pass"]), min(seen["import unvanish"])


def measure(python: Path, wheel: Path, environment: Path) -> dict[str, float]:
    """Sizes in MB and times in seconds."""
    bare, importing = time_walls(python)
    return {
        "wheel, MB": wheel.stat().st_size / 1e6,
        "installed, MB": weigh(packages(environment) / "unvanish") / 1e6,
        "import unvanish": time_import(python, "unvanish", REPEATS),
        "import unvanish.clinic.check": time_import(python, "unvanish.clinic.check", 3),
        "import torch": time_import(python, "torch", 3),
        "python -c pass, CPU": time_command(python, "-c", "pass"),
        "python -c 'import unvanish', CPU": time_command(python, "-c", "import unvanish"),
        "python -c pass, wall": bare,
        "python -c 'import unvanish', wall": importing,
        "unvanish --help, CPU": time_command(python, "-m", "unvanish", "--help"),
    }


def main() -> int:
    """Build, install, try, measure; 1 if something does not work from the wheel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="where the environments lie")
    parser.add_argument("--train", action="store_true", help="also the extra `train`, in its own environment")
    record.add_option(parser)
    options, console = parser.parse_args(), Console()
    cache = options.cache.resolve()
    failures = 0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        wheel = build(folder)
        for name, text in (("net.py", NET), ("script.py", SCRIPT), ("watched.py", WATCHED)):
            (folder / name).write_text(text)
        python = fill(cache, "wheel", wheel)
        tried = [(python, trial) for trial in TRIALS]
        if options.train:
            tried.append((fill(cache, "wheel-train", wheel, "[train]"), TRAIN))
        table = Table("from the wheel", "works", "seconds")
        for interpreter, trial in tried:
            right, seconds, text = attempt(interpreter, trial, folder)
            table.add_row(trial.name, "yes" if right else "no", f"{seconds:.1f}")
            if not right:
                failures += 1
                console.print(text[-2000:], markup=False, highlight=False)
        found = measure(python, wheel, cache / "wheel")
    for title, value in found.items():
        table.add_row(title, "", f"{value:.3f}")
    console.print(table)
    record.append("wheel", options, {**found, "failures": failures})
    return int(bool(failures))


if __name__ == "__main__":
    raise SystemExit(main())
