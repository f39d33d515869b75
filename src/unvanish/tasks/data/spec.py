"""The data YAML: which kind of data, where its parts lie, what its classes are called, where it can be
fetched.

Notable:
- The keys are those that YOLO users know (`path train val test names nc download`), `kind`, `task`, and the
  settings of the kind, which are the keyword arguments of its `read`. Any other key is refused with its line.
- `path`, `train`, `val` and `test` may be lists: of a path the first one that exists counts.
- A file is data. A download that is a script is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml

from unvanish.registry import suggest
from unvanish.tasks import tasks
from unvanish.tasks.data.kinds import Kind, kind, kinds
from unvanish.tasks.data.problems import DataError

KEYS = ("kind", "task", "path", "train", "val", "test", "names", "nc", "download", "description")
FETCH_KEYS = ("url", "to", "sha256", "md5", "bytes")
SETS = Path(str(files(__package__) / "sets"))


@dataclass(frozen=True)
class Fetch:
    """One file to download: its addresses, its name beside the data, its checksum ("sha256:..." or
    "md5:...").
    """

    urls: tuple[str, ...]
    to: str
    checksum: str = ""
    size: int = 0


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


def sets() -> dict[str, Path]:
    """The data sets that come with a YAML, by name."""
    return {path.stem: path for path in sorted(SETS.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a data YAML: a path, or one that comes with unvanish, with or without its suffix."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = sets()
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    if stem in known:
        return known[stem]
    raise DataError(
        f"no data set {name!r}{suggest(stem, known)}: there is no such file, and those that come with "
        f"unvanish are {', '.join(known)}"
    )


def read(source: str | Path | Mapping[str, Any], task: str | None = None, **settings: Any) -> DataSpec:
    """A data YAML by name or path, or its mapping; `settings` overrule it. DataError names file, line and
    key.
    """
    if isinstance(source, Mapping):
        return checked(dict(source), {}, None, task, settings)
    plain = without_yaml(Path(source).expanduser())
    if plain:
        return replace(checked(plain, {}, None, task, settings), name=Path(source).stem)
    file = find(str(source))
    values, lines = parsed(file)
    return checked(values, lines, file, task, settings)


def without_yaml(path: Path) -> dict[str, Any]:
    """What a folder of images, a table or a text means without a YAML; empty for anything else."""
    if path.is_dir():
        return {"kind": "folder", "path": str(path.resolve())}
    form = {".csv": "table", ".tsv": "table", ".jsonl": "table", ".txt": "text"}.get(path.suffix)
    if form is None or not path.is_file():
        return {}
    return {"kind": form, "path": str(path.resolve().parent), "train": path.name}


def parsed(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of a YAML file and the line of each top-level key."""
    try:
        text = file.read_text(encoding="utf-8")
        node, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        raise DataError(f"{file} must hold keys and values such as `kind: digits`; it does not")
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.value in lines:
            raise DataError(f"{file}:{line}: {key.value!r} is given twice, first in line {lines[key.value]}")
        lines[key.value] = line
    return values, lines


def checked(
    values: dict[str, Any],
    lines: Mapping[str, int],
    file: Path | None,
    task: str | None,
    settings: Mapping[str, Any],
) -> DataSpec:
    """The spec of a mapping; DataError for anything that is not understood."""
    name = file.stem if file else "data"

    def where(key: str) -> str:
        return f"{file}:{lines[key]}: " if file and key in lines else (f"{file}: " if file else "data: ")

    chosen = _kind(values, where)
    for key in values:
        _known(key, (*KEYS, *chosen.settings), where(key))
    for key in settings:
        _known(key, tuple(chosen.settings), "open_data: ")
    wanted = task or values.get("task") or chosen.tasks[0]
    _known(wanted, tuple(tasks()) + chosen.tasks, where("task"), "task")
    if wanted not in chosen.tasks:
        raise DataError(
            f"{where('task')}data of kind {chosen.name!r} serve {', '.join(chosen.tasks)}, not {wanted!r}"
        )
    own = {key: values[key] for key in values if key in chosen.settings}
    for key, value in own.items():
        _typed(value, chosen.settings[key], where(key) + key)
    for key, value in settings.items():
        _typed(value, chosen.settings[key], key)
    return DataSpec(
        name=name,
        kind=chosen,
        task=wanted,
        path=_texts(values.get("path"), where("path") + "path"),
        parts={p: _texts(values.get(p), where(p) + p) for p in ("train", "val", "test") if values.get(p)},
        names=_names(values, where),
        download=_download(values.get("download"), where("download") + "download"),
        description=str(values.get("description", "")),
        settings={**own, **settings},
        file=file,
    )


def _kind(values: Mapping[str, Any], where: Any) -> Kind:
    """The kind that is named; else YOLO's layout where classes are named, else image folders."""
    named = values.get("kind")
    if named is None:
        if "train" in values and ("names" in values or "nc" in values):
            return kind("yolo")  # the YAML of YOLO users
        return kind("folder")
    if named not in kinds():
        raise DataError(
            f"{where('kind')}no kind {named!r}{suggest(str(named), kinds())}; there are {', '.join(kinds())}"
        )
    return kind(named)


def _known(word: Any, known: Collection[str], where: str, noun: str = "key") -> None:
    if word not in known:
        near = get_close_matches(str(word), known, 1, 0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        listed = "" if near else f"; there are {', '.join(known)}"
        raise DataError(f"{where}no {noun} {word!r}{hint}{listed}")


def _typed(value: Any, default: Any, where: str) -> None:
    """Hold a setting against its default's type; whole numbers serve as fractions, None takes anything."""
    if default is None:
        return
    accepted: Any = {float: (int, float), tuple: (list, tuple)}.get(type(default), type(default))
    if not isinstance(value, accepted) or isinstance(value, bool) != isinstance(default, bool):
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        wanted = words.get(type(default), type(default).__name__)
        raise DataError(f"{where} must be {wanted} (default {default!r}), it is {value!r}")


def _texts(value: Any, where: str) -> tuple[str, ...]:
    """A text or a list of texts."""
    listed = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if not all(isinstance(v, str | Path) for v in listed):
        raise DataError(f"{where} must be a path or a list of paths, it is {value!r}")
    return tuple(map(str, listed))


def _names(values: Mapping[str, Any], where: Any) -> tuple[str, ...]:
    """Class names from a list or a map {0: name}; `nc` must agree with them."""
    given, nc = values.get("names"), values.get("nc")
    if nc is not None and (not isinstance(nc, int) or isinstance(nc, bool) or nc < 1):
        raise DataError(f"{where('nc')}nc must be the number of classes, it is {nc!r}")
    if isinstance(given, Mapping):
        if sorted(given, key=str) != sorted(range(len(given)), key=str):
            raise DataError(f"{where('names')}names must count from 0 without a gap, the keys are {[*given]}")
        given = [given[i] for i in range(len(given))]
    if given is not None and not isinstance(given, list | tuple):
        raise DataError(f"{where('names')}names must be a list or a map {{0: name, ...}}, it is {given!r}")
    if given is None:
        return tuple(str(i) for i in range(nc or 0))
    if nc is not None and nc != len(given):
        raise DataError(f"{where('nc')}nc is {nc}, but there are {len(given)} names; make them agree")
    return tuple(map(str, given))


def _download(value: Any, where: str) -> tuple[Fetch, ...]:
    """The files to fetch: an address, a mapping, or a list of these."""
    listed = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return tuple(_fetch(entry, where) for entry in listed)


def _fetch(entry: Any, where: str) -> Fetch:
    fields = {"url": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, Mapping) or "url" not in fields:
        raise DataError(f"{where} must hold addresses or mappings with url and sha256, it holds {entry!r}")
    for key in fields:
        _known(key, FETCH_KEYS, f"{where}: ")
    urls = fields["url"] if isinstance(fields["url"], list) else [fields["url"]]
    for url in urls:
        if urlparse(str(url)).scheme not in ("http", "https") or "\n" in str(url).strip():
            raise DataError(f"{where}: {url!r} is no http(s) address; scripts in a YAML are never run")
    to = str(fields.get("to") or Path(urlparse(urls[0].strip()).path).name)
    if Path(to).is_absolute() or ".." in Path(to).parts:
        raise DataError(f"{where}: `to: {to}` must stay inside the data set's folder")
    sums = [f"{kind_}:{fields[kind_]}".lower() for kind_ in ("sha256", "md5") if fields.get(kind_)]
    return Fetch(tuple(u.strip() for u in urls), to, sums[0] if sums else "", int(fields.get("bytes", 0)))
