"""The data YAML: the kind of data, the places of its parts, the names of its classes, its download.

Notable:
- The keys are those of YOLO (`path train val test names nc download`), `kind`, `task`, and the settings of
  the kind, which are the keyword arguments of its `read`. Any other key is refused with its line.
- `path`, `train`, `val` and `test` may be lists; of `path` the first one that exists counts.
- A YAML is data: a download that is a script is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from unvanish.core.registry import suggest
from unvanish.lab.data.fields import (
    Fetch,
    Where,
    check_known,
    check_type,
    parse_downloads,
    parse_names,
    parse_paths,
)
from unvanish.lab.data.kinds import Kind, kinds
from unvanish.lab.data.problems import DataError
from unvanish.lab.tasks import tasks
from unvanish.store.files import read_text
from unvanish.store.yaml_text import YamlFault, build, compose, line_of, read_scalar

KEYS = ("kind", "task", "path", "train", "val", "test", "names", "nc", "download", "description")
HUB = "hf:"
SAVED = ("dataset_dict.json", "state.json")  # what the library `datasets` writes into its folders
SETS = Path(str(files(__package__) / "sets"))


@dataclass(frozen=True)
class DataSpec:
    """A data YAML, read and checked."""

    name: str
    kind: Kind
    task: str
    path: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # train, val, test
    names: tuple[str, ...] = ()
    download: tuple[Fetch, ...] = ()
    description: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    notes: tuple[str, ...] = ()  # keys that are not used


def sets() -> dict[str, Path]:
    """The built-in data YAMLs, by name."""
    return {path.stem: path for path in sorted(SETS.glob("*.yaml"))}


def find_yaml(name: str) -> Path:
    """The file of a data YAML: a path, or the name of a built-in one, with or without its suffix."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = sets()
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    if stem in known:
        return known[stem]
    raise DataError(
        f"no data set {name!r}{suggest(stem, known)}: there is no such file, and the built-in "
        f"ones are {', '.join(known)}"
    )


def read(source: str | Path | Mapping[str, Any], task: str | None = None, **settings: Any) -> DataSpec:
    """Read a data YAML by name, path or mapping; `settings` override it; DataError names file and line."""
    if isinstance(source, Mapping):
        return check_spec(dict(source), {}, None, task, settings)
    text = str(source)
    if text.startswith(HUB):
        plain: dict[str, Any] = {"kind": "hf", "path": text.removeprefix(HUB)}
    else:
        plain = {} if text in sets() else without_yaml(Path(source).expanduser())
    if plain:
        return replace(check_spec(plain, {}, None, task, settings), name=Path(source).stem)
    file = find_yaml(str(source))
    values, lines = parse(file)
    return check_spec(values, lines, file, task, settings)


def without_yaml(path: Path) -> dict[str, Any]:
    """The fields that a folder of images, a table or a text implies; empty for anything else."""
    if path.is_dir() and any((path / name).is_file() for name in SAVED):
        return {"kind": "hf", "path": str(path.resolve())}
    if path.is_dir():
        return {"kind": "folder", "path": str(path.resolve())}
    form = {".csv": "table", ".tsv": "table", ".jsonl": "table", ".txt": "text"}.get(path.suffix.lower())
    if form is None or not path.is_file():
        return {}
    return {"kind": form, "path": str(path.resolve().parent), "train": path.name}


def parse(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of a YAML file and the line of each top-level key."""
    try:
        node = compose(read_text(file))
        values: Any = None if node is None else build(node, {})
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    except YamlFault as error:
        place = f"{file}:{error.line}" if error.line else f"{file}"
        raise DataError(f"{place}: {error.text}") from error
    if not isinstance(node, yaml.MappingNode):
        raise DataError(f"{file} must contain keys and values such as `kind: digits`")
    return values, {str(read_scalar(key)): line_of(key) for key, _ in node.value}


def check_spec(
    values: dict[str, Any],
    lines: Mapping[str, int],
    file: Path | None,
    task: str | None,
    settings: Mapping[str, Any],
) -> DataSpec:
    """The spec of a mapping; DataError if anything in it is wrong."""
    name = file.stem if file else "data"

    def where(key: str) -> str:
        return f"{file}:{lines[key]}: " if file and key in lines else (f"{file}: " if file else "data: ")

    chosen = _kind(values, where)
    notes = _unused(values, chosen, where)
    for key in settings:
        check_known(key, tuple(chosen.settings), "open_data: ")
    wanted = task or values.get("task") or chosen.tasks[0]
    check_known(wanted, tuple(tasks()) + chosen.tasks, where("task"), "task")
    if wanted not in chosen.tasks:
        listed = ", ".join(chosen.tasks)
        text = f"data of kind {chosen.name!r} are for {listed}, not for {wanted!r}"
        raise DataError(f"{where('task')}{text}")
    own = {key: values[key] for key in values if key in chosen.settings}
    for key, value in own.items():
        check_type(value, chosen.settings[key], where(key) + key)
    for key, value in settings.items():
        check_type(value, chosen.settings[key], key)
    return DataSpec(
        name=name,
        kind=chosen,
        task=wanted,
        path=parse_paths(values.get("path"), where("path") + "path"),
        parts={
            p: parse_paths(values.get(p), where(p) + p) for p in ("train", "val", "test") if values.get(p)
        },
        names=parse_names(values, where),
        download=parse_downloads(values.get("download"), where("download") + "download"),
        description=str(values.get("description", "")),
        settings={**own, **settings},
        file=file,
        notes=notes,
    )


def _unused(values: Mapping[str, Any], kind: Kind, where: Where) -> tuple[str, ...]:
    """The unknown keys of a YAML of YOLO users, whose tools add their own; DataError for others."""
    known = (*KEYS, *kind.settings)
    if "kind" in values or kind.name != "yolo":
        for key in values:
            check_known(key, known, where(key))
        return ()
    if "kpt_shape" in values:
        raise DataError(f"{where('kpt_shape')}poses are not there; the tasks are {', '.join(kind.tasks)}")
    return tuple(f"{where(k)}{k!r} is not used{suggest(str(k), known)}" for k in values if k not in known)


def _kind(values: Mapping[str, Any], where: Where) -> Kind:
    """The kind that is named; by default YOLO's layout if classes are named, else image folders."""
    named = values.get("kind")
    if named is None:
        if "train" in values and ("names" in values or "nc" in values):
            return kinds()["yolo"]  # the YAML of YOLO users
        return kinds()["folder"]
    if named not in kinds():
        raise DataError(
            f"{where('kind')}no kind {named!r}{suggest(str(named), kinds())}; there are {', '.join(kinds())}"
        )
    return kinds()[named]
