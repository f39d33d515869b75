"""Every run of a benchmark appends one JSON line: date, commit, versions, machine, options and figures.

The lines of a benchmark lie in `benchmarks/results/NAME.jsonl`, or in the folder that `--results` names;
`python -m benchmarks.history` draws them over time. Lines of different options are never compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Figure = float | int | str | None
# what changes how a run is shown or how long it takes, but no figure
UNCOUNTED = {
    "results",
    "out",
    "markdown",
    "jobs",
    "show_failures",
    "verbose",
    "list",
    "recipes",
    "cache",
    "worker",
    "memory",
}


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option `--results FOLDER`."""
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="FOLDER", help="where a line of figures is appended"
    )


def append(name: str, options: argparse.Namespace, figures: Mapping[str, Figure]) -> Path:
    """Append the line of a run to `NAME.jsonl`; returns the file. A NaN or infinity becomes null."""
    line = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        **versions(),
        "machine": machine(),
        "options": {
            k: v for k, v in sorted(vars(options).items()) if k not in UNCOUNTED and v not in (None, False)
        },
        "figures": {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()
        },
    }
    path = Path(options.results) / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, default=str) + "\n")
    return path


def read(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Every line of every benchmark, the oldest first; a line that was cut off is left out."""
    lines = []
    for path in sorted(folder.glob("*.jsonl")):
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
    return sorted(lines, key=lambda line: str(line["date"]))


def commit() -> str:
    """The commit of the tree, with `-dirty` if src/ has changes; "" outside a repository."""
    head = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "src"], cwd=ROOT, capture_output=True)
    return head.stdout.strip() + "-dirty" * (head.returncode == 0 and changed.returncode == 1)


def versions() -> dict[str, str]:
    """The versions that figures depend on."""
    import torch

    import unvanish

    return {"unvanish": unvanish.__version__, "torch": torch.__version__, "python": platform.python_version()}


def machine() -> dict[str, Figure]:
    """The processor, its cores, the memory in GB, and the system."""
    cpu = Path("/proc/cpuinfo")
    named = cpu.read_text(encoding="utf-8").partition("model name")[2] if cpu.exists() else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "processor": named.partition("\n")[0].strip("\t :") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
    }
