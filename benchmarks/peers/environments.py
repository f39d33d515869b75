"""An environment for each tool, in a folder of the user's choice: torch once, pinned; the tool beside it.

Notable: the tool's environment sees torch's by a `.pth` file, so a gigabyte lies there once, and pip takes it
for installed; a tool that insists on another torch is refused by its pin, and the reason is kept.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("torch", "numpy")
PATIENCE = 900  # seconds an installation


@dataclass(frozen=True)
class Place:
    """A tool's Python, and why it has none."""

    python: Path
    trouble: str = ""


def pins() -> dict[str, str]:
    """What this project is tested with, by package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def own_environment() -> Place:
    """The environment that this program runs in, for unvanish itself."""
    return Place(Path(sys.executable))


def shared_environment(cache: Path) -> Place:
    """Torch and NumPy in the versions of constraints.txt."""
    pinned = pins()
    wanted = [f"{name}=={pinned[name]}" for name in SHARED]
    return install(cache / "torch", wanted)


def tool_environment(cache: Path, name: str, requires: tuple[str, ...]) -> Place:
    """What the tool requires, over the shared torch."""
    shared = shared_environment(cache)
    if shared.trouble or not requires:
        return shared
    folder = cache / name
    make(folder)
    (packages(folder) / "shared.pth").write_text(f"{packages(cache / 'torch')}\n")
    return install(folder, [*requires, f"torch=={pins()['torch']}"])


def packages(folder: Path) -> Path:
    """Where an environment keeps its packages."""
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder), "platbase": str(folder)}))


def make(folder: Path) -> Path:
    """An empty environment, if there is none yet; returns its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return python


def install(folder: Path, wanted: list[str]) -> Place:
    """These packages by pip, once; what pip says if it refuses."""
    python, done = make(folder), folder / "installed.txt"
    if done.exists() and done.read_text().split() == wanted:
        return Place(python)
    call = [str(python), "-m", "pip", "install", "-q", *wanted]
    try:
        said = subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return Place(python, f"pip took more than {PATIENCE} s")
    if said.returncode:
        return Place(python, reason(said.stderr))
    done.write_text("\n".join(wanted))
    return Place(python)


def reason(text: str) -> str:
    """The line of pip's complaint that says most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|error|.*Error\b)", line)]
    telling = [line for line in lines if "requires" in line or "depends on" in line]
    return (telling + errors + lines[-1:] + ["pip failed"])[0][:200]


def versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The versions of what is installed there, "" for what is not."""
    code = (
        "import sys, importlib.metadata as m\n"
        "for n in sys.argv[1:]:\n"
        "    try: print(n, m.version(n))\n"
        "    except m.PackageNotFoundError: print(n, '')\n"
    )
    plain = [re.split(r"[<>=!~\[]", name)[0] for name in names]
    said = subprocess.run([str(python), "-c", code, *plain], capture_output=True, text=True, check=False)
    return {line.split(" ")[0]: line.partition(" ")[2] for line in said.stdout.splitlines()}
