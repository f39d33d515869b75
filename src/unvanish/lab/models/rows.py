"""The rows of a model, in our form and the classic one, read as `SpecRow`s with resolved sources.

Notable:
- Ours: `- {name: stem, module: Conv, from: x, repeats: 2, out: 16, kernel: 3}`; all except the first four are
  arguments of the module by name; `args: [16, 3]` gives them in order.
- Classic: `- [from, repeats, module, args]`, args in order.
- `from` is a name, an index, a negative index counted from the row itself, or a list of these; -1 by default.
  A row reads only rows above it, so there are no cycles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unvanish.core.registry import suggest
from unvanish.lab.models.scales import ScaleFactors
from unvanish.lab.models.yaml_data import SpecError, YamlList, YamlTable

OWN = ("name", "module", "from", "repeats", "args", "tied")
CLASSIC = "[from, repeats, module, args]"
TAKEN = re.compile(r"[A-Za-z_0-9][\w-]*")


@dataclass(frozen=True)
class SpecRow:
    """One layer: its sources, its module and arguments, and its line in the file.

    `sources`: indices of rows; -1 is the net's first input, -2 its second, and so on. `lines`: of each key.
    `tied`: the row above whose weights it shares, or -1.
    """

    index: int
    name: str
    module: str
    sources: tuple[int, ...]
    repeats: int = 1
    args: tuple[Any, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0
    lines: Mapping[str, int] = field(default_factory=dict)
    tied: int = -1

    @property
    def label(self) -> str:
        """The row's name for messages."""
        own = f" {self.name!r}" if self.name != str(self.index) else ""
        return f"layer {self.index}{own} ({self.module})"


@dataclass(frozen=True)
class Place:
    """The context of the rows of one file: the file, the net's inputs, named numbers, the scale."""

    file: str
    inputs: tuple[str, ...]
    numbers: Mapping[str, Any]
    scale: ScaleFactors

    def error(self, line: int, text: str) -> SpecError:
        """An error at a line of this file."""
        return SpecError(self.file, line, text)


def read_rows(raw: Sequence[tuple[Any, int]], place: Place) -> tuple[SpecRow, ...]:
    """Read the raw rows of a file, given with their lines; SpecError names what is wrong in one."""
    names = [_name(entry, index) for index, (entry, _) in enumerate(raw)]
    places: dict[str, int] = {}  # of the names so far
    found: list[SpecRow] = []
    for index, (entry, line) in enumerate(raw):
        where = f"layer {index}"
        if isinstance(entry, YamlTable):
            table, args = entry, entry.get("args", [])
        elif isinstance(entry, YamlList) and 3 <= len(entry) <= 4:
            table, args = _classic(entry, line), entry[3] if len(entry) == 4 else []
        else:
            raise place.error(
                line, f"{where} must be {{module: ..., ...}} or {CLASSIC}, it is {_show(entry)}"
            )
        _check_name(index, names, raw, place, line, places)
        found.append(_row(index, table, args, names, place, line))
    return tuple(found)


def _row(index: int, table: YamlTable, args: Any, names: list[str], place: Place, line: int) -> SpecRow:
    where = f"layer {index}"
    module = table.get("module")
    if not isinstance(module, str) or not module:
        near = next((f" (did you mean 'module' for {k!r}?)" for k in table if suggest(k, ["module"])), "")
        raise place.error(table.at("module") or line, f"{where} has no module{near}")
    if not isinstance(args, list):
        raise place.error(
            table.at("args"), f"{where}: args must be a list such as [16, 3], it is {_show(args)}"
        )
    settings = {k: v for k, v in table.items() if k not in OWN}
    for key in settings:
        _refuse_near(key, table, place, where)
    return SpecRow(
        index,
        names[index],
        module,
        _sources(table, index, names, place),
        _repeats(table, place, where),
        tuple(args),
        settings,
        line,
        dict(table.lines),
        _find_tied(table, index, names, place),
    )


def _find_tied(table: YamlTable, index: int, names: list[str], place: Place) -> int:
    """The row above that `tied:` names, -1 without one."""
    wanted = table.get("tied")
    if wanted is None:
        return -1
    if wanted not in names[:index]:
        near = suggest(str(wanted), names[:index])
        raise place.error(
            table.at("tied"),
            f"layer {index}: tied must name a layer above, there is none called {wanted!r}{near}",
        )
    return names.index(wanted)


def _classic(entry: YamlList, line: int) -> YamlTable:
    keys = ("from", "repeats", "module", "args")
    return YamlTable(dict(zip(keys, entry, strict=False)), dict(zip(keys, entry.lines, strict=False)), line)


def _name(entry: Any, index: int) -> str:
    given = entry.get("name") if isinstance(entry, YamlTable) else None
    return str(index) if given is None else str(given)


def _check_name(
    index: int, names: list[str], raw: Any, place: Place, line: int, places: dict[str, int]
) -> None:
    """Refuse a name that is none, or is taken; else note its place."""
    name = names[index]
    if not TAKEN.fullmatch(name):
        raise place.error(
            line, f"layer {index}: {name[:60]!r} is not a valid name; use letters, digits, _ and -"
        )
    if name in places:
        first = raw[places[name]][1]
        raise place.error(line, f"two layers are called {name!r}, the first on line {first}")
    if name in place.inputs:
        raise place.error(line, f"layer {index}: {name!r} is the name of the net's input; choose another one")
    places[name] = index


def _refuse_near(key: str, table: YamlTable, place: Place, where: str) -> None:
    """Refuse a key that cannot be an argument's name; arguments are checked when built."""
    if key.isidentifier():
        return
    near = suggest(key, [*OWN, "out", "kernel", "stride"])
    raise place.error(table.at(key), f"{where} has no key {key!r}{near}")


def _repeats(table: YamlTable, place: Place, where: str) -> int:
    given = table.get("repeats", 1)
    value = place.numbers.get(given, given) if isinstance(given, str) else given
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        known = ", ".join(k for k, v in place.numbers.items() if isinstance(v, int))
        words = f" (or one of {known})" if known and isinstance(given, str) else ""
        text = f"{where}: repeats must be a whole number from 1{words}, it is {_show(given)}"
        raise place.error(table.at("repeats"), text)
    return place.scale.repeats(value)


def _sources(table: YamlTable, index: int, names: list[str], place: Place) -> tuple[int, ...]:
    given = table.get("from", -1)
    several = given if isinstance(given, list) else [given]
    if not several:
        raise place.error(table.at("from"), f"layer {index}: from is an empty list; name a layer to read")
    return tuple(_source(value, index, names, place, table.at("from")) for value in several)


def _source(given: Any, index: int, names: list[str], place: Place, line: int) -> int:
    """The index of a row above, or -1, -2, ... for the net's inputs."""
    where = f"layer {index} reads {given!r}"
    if isinstance(given, str) and given in place.inputs:
        return -1 - place.inputs.index(given)
    if isinstance(given, str) and given in names:
        row = names.index(given)
    elif isinstance(given, int) and not isinstance(given, bool):
        row = given if given >= 0 else index + given
        if given == -1 and index == 0:
            return -1
    else:
        raise place.error(
            line, f"{where}: no layer has this name{suggest(str(given), [*names, *place.inputs])}"
        )
    if not 0 <= row < len(names):
        raise place.error(line, f"{where}: there are only layers 0 to {len(names) - 1}")
    if row >= index:
        how = "itself" if row == index else f"layer {row}, which comes later"
        raise place.error(line, f"{where}, that is {how}; a layer reads only layers above it")
    return row


def _show(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) < 60 else text[:57] + '...'} ({type(value).__name__})"
