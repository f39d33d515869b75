"""From a model's name to its file: `resnet20.yaml`, `yolo11n-seg.yaml`, a path, or a name of the zoo.

Notable: if there is no file `yolo11n.yaml`, the name means `yolo11.yaml` at its scale n.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from unvanish.core.registry import suggest
from unvanish.lab.models.yaml_data import SpecError, YamlTable, parse_yaml
from unvanish.store.files import read_text

FOLDER = Path(__file__).parent / "zoo"


@dataclass(frozen=True)
class ZooEntry:
    """One network of the zoo: its name (with the scale), file, task and description."""

    name: str
    path: Path
    task: str
    description: str


def open_model(name: str | Path) -> tuple[YamlTable, Path, str]:
    """(the table, its file, the scale in the name or ""); SpecError suggests the nearest name."""
    wanted = Path(name)
    if not wanted.name:  # "/" or "."
        raise SpecError(str(name), 0, "this is a folder; name a file or a model, `unvanish zoo` lists them")
    if wanted.suffix not in (".yaml", ".yml"):
        wanted = wanted.with_name(wanted.name + ".yaml")
    for folder in _folders(wanted):
        path = folder / wanted.name
        if path.is_file():
            return read_table(path), path, ""
    for folder in _folders(wanted):
        for base, scale in _splits(wanted.stem):
            path = folder / f"{base}{wanted.suffix}"
            if path.is_file():
                found = read_table(path)
                scales = found.get("scales")
                if isinstance(scales, YamlTable) and scale in scales:
                    return found, path, scale
    near = suggest(wanted.stem, [*zoo(), *(p.stem for p in wanted.parent.glob("*.yaml"))])
    raise SpecError(str(name), 0, f"there is no such model{near}; `unvanish zoo` lists the built-in ones")


def zoo() -> dict[str, Path]:
    """Every built-in network by name: {"resnet20": .../resnet.yaml, ...}."""
    return {entry.name: entry.path for entry in catalogue()}


@lru_cache(maxsize=1)
def catalogue() -> tuple[ZooEntry, ...]:
    """Every built-in network, with its task and description, by name in alphabetical order."""
    return tuple(sorted((e for path in FOLDER.glob("*.yaml") for e in _entries(path)), key=lambda e: e.name))


def read_table(path: Path) -> YamlTable:
    """One YAML file; SpecError if it cannot be read."""
    try:
        return parse_yaml(read_text(path), str(path))
    except OSError as error:
        raise SpecError(str(path), 0, f"this file cannot be read: {error}") from error


def join(base: str, scale: str) -> str:
    """A file's name with its scale: yolo11-seg and n give yolo11n-seg."""
    head = re.sub(r"-(seg|cls|pose|obb)$", "", base)
    return head + scale + base[len(head) :]


def _entries(path: Path) -> Iterator[ZooEntry]:
    found = read_table(path)
    task, about = str(found.get("task", "classify")), str(found.get("description", ""))
    scales = found.get("scales")
    if not scales:
        yield ZooEntry(path.stem, path, task, about)
        return
    for name, scale in scales.items():
        own = scale.get("description", about) if isinstance(scale, YamlTable) else about
        yield ZooEntry(join(path.stem, name), path, task, str(own))


def _folders(wanted: Path) -> list[Path]:
    return [wanted.parent] if wanted.parent != Path() else [Path(), FOLDER]


def _splits(stem: str) -> Iterator[tuple[str, str]]:
    """Every way to split a scale off a name, at its end or before a dash."""
    for end in [len(stem), *(i for i, letter in enumerate(stem) if letter == "-")]:
        for begin in range(end - 1, 0, -1):
            yield stem[:begin] + stem[end:], stem[begin:end]
