"""`[tool.unvanish]` of pyproject.toml: which rules run, their settings, and which findings make a check fail.

Notable:
- The nearest pyproject.toml counts, from the working folder upwards, as for other linters.
- A mistyped key, code or setting is refused with its file, its place and the nearest correct one.
- Without the table no rule is loaded: reading nothing costs nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unvanish.clinic.excuses import Ignore
from unvanish.core.plain import name_value
from unvanish.core.registry import suggest
from unvanish.rules import Rule, rules

FAIL_ON = ("note", "warning", "error", "never")
KEYS = ("select", "ignore", "fail-on", "baseline", "rules", "models")
MODEL = ("model", "data", "loss", "input", "dtype", "batch-size", "lr", "seed", "snapshot", "fail-on")
IGNORE = ("code", "path", "reason")


class ConfigError(ValueError):
    """A setting that cannot be used; the text names its place, the problem and what is allowed."""


@dataclass(frozen=True)
class Config:
    """A project's settings: codes or prefixes to select and ignore, when to fail, settings by code.

    `excused`: what is looked for and does not count at some places; `baseline`: the file of old findings;
    `models`: those that a test run checks, by name, each with the options of `unvanish check`.
    """

    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    fail_on: str | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    path: Path | None = None
    excused: tuple[Ignore, ...] = ()
    baseline: Path | None = None
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def find(start: Path | None = None) -> Path | None:
    """The nearest pyproject.toml in `start` (default: the working folder) or above it."""
    folder = (start or Path.cwd()).resolve()
    candidates = (place / "pyproject.toml" for place in (folder, *folder.parents))
    return next((path for path in candidates if path.is_file()), None)


def load(start: Path | None = None) -> Config:
    """The settings for a folder, empty if there are none; ConfigError for a wrong one."""
    path = find(start)
    return Config() if path is None else read(path)


def read(path: Path) -> Config:
    """The `[tool.unvanish]` table of one file; ConfigError names file, key and the nearest correct one."""
    table = _tool_table(path)
    if table is None:
        return Config(path=path)
    where = f"{path}: [tool.unvanish]"
    known = rules()
    for key in table:
        _refuse_unknown(key, KEYS, f"{where} has no key", "the keys are")
    codes, excused = _split_ignore(table.get("ignore", []), known, f"{where} ignore")
    return Config(
        select=_codes(table["select"], known, f"{where} select") if "select" in table else None,
        ignore=codes,
        fail_on=_fail_on(table["fail-on"], f"{where} fail-on") if "fail-on" in table else None,
        settings=check_settings(table.get("rules", {}), f"{path}: [tool.unvanish.rules]"),
        path=path,
        excused=excused,
        models=_models(table.get("models", {}), f"{path}: [tool.unvanish.models]"),
        baseline=_beside(path, table["baseline"], f"{where} baseline") if "baseline" in table else None,
    )


def select_codes(
    codes: Iterable[str], select: Iterable[str] | None = None, ignore: Iterable[str] | None = None
) -> tuple[str, ...]:
    """The codes that `select` (codes or prefixes; None: all) includes and `ignore` does not exclude.

    Raises ConfigError for an entry that no code begins with, with the nearest one that exists.
    """
    known = tuple(codes)
    chosen = known if select is None else _matching(select, known, "select")
    dropped = () if ignore is None else _matching(ignore, known, "ignore")
    return tuple(code for code in known if code in chosen and code not in dropped)


def split(text: str | Iterable[str]) -> tuple[str, ...]:
    """Codes from an iterable or from text with commas: "ACT, INI001" gives ("ACT", "INI001")."""
    if not isinstance(text, str):
        codes = tuple(text) if isinstance(text, Iterable) else (text,)
        if not all(isinstance(code, str) for code in codes):
            raise ConfigError(f"rule codes are {_show(text)}; give a list of texts, as in ['ACT', 'INI001']")
        return codes
    return tuple(part.strip() for part in text.split(",") if part.strip())


def check_settings(tables: Any, where: str = "settings") -> dict[str, Mapping[str, Any]]:
    """Settings by rule code, each checked by its rule's signature; ConfigError names the wrong one."""
    if not isinstance(tables, Mapping):
        raise ConfigError(f"{where} must hold a table of settings for each code, it is {_show(tables)}")
    known = rules() if tables else {}
    for code in tables:
        _refuse_unknown(code, known, f"{where} has no rule", "`unvanish rules` lists")
    return {code: _rule_settings(table, known[code], f"{where} {code}") for code, table in tables.items()}


def read_ignore(code: Any, path: Any, reason: Any, where: str) -> Ignore:
    """An excuse from its parts; ConfigError for an unknown code, or without a path or a reason."""
    for name, value in zip(IGNORE, (code, path, reason), strict=True):
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{where}: {name} must be a text that says something, it is {_show(value)}")
    _matching([code], rules(), where)
    return Ignore(code.strip().upper(), path.strip(), reason.strip())


def _split_ignore(
    value: Any, known: Collection[str], where: str
) -> tuple[tuple[str, ...], tuple[Ignore, ...]]:
    """Codes that are not looked for, and tables of what does not count at some places."""
    tables = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    codes = [entry for entry in value if not isinstance(entry, dict)] if tables else value
    excused = []
    for table in tables:
        for key in table:
            _refuse_unknown(key, IGNORE, f"{where} has no key", "the keys are")
        parts = (table.get("code"), table.get("path", "*"), table.get("reason"))
        excused.append(read_ignore(*parts, where))
    return _codes(codes, known, where), tuple(excused)


def _models(tables: Any, where: str) -> dict[str, Mapping[str, Any]]:
    """The models to check, each a table of options that are texts, numbers or lists of texts."""
    if not isinstance(tables, Mapping):
        raise ConfigError(f"{where} must hold a table for each model, it is {_show(tables)}")
    for name, table in tables.items():
        if not isinstance(table, Mapping) or not isinstance(table.get("model"), str):
            raise ConfigError(f'{where} {name_value(name)} must name its model, as in model = "net.py:build"')
        for key, value in table.items():
            _refuse_unknown(key, MODEL, f"{where} {name_value(name)} has no option", "the options are")
            if isinstance(value, bool) or not isinstance(value, str | int | float | list):
                raise ConfigError(f"{where} {name_value(name)} {key} must be a text or a number")
    return dict(tables)


def _beside(path: Path, value: Any, where: str) -> Path:
    """A file that pyproject.toml names, as seen from its folder."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where} must be the name of a file, it is {_show(value)}")
    return path.parent / value


def _matching(wanted: Iterable[str], known: Collection[str], where: str) -> set[str]:
    """The known codes that begin with any of the wanted prefixes."""
    found: set[str] = set()
    for prefix in split(wanted):
        hits = {code for code in known if code.startswith(prefix.upper())} if prefix else set()
        if not hits:
            families = dict.fromkeys(code[:3] for code in known)
            near = suggest(prefix, [*known, *families]) + "; `unvanish rules` lists them"
            raise ConfigError(f"{where}: no rule code begins with {name_value(prefix)}{near}")
        found |= hits
    return found


def _tool_table(path: Path) -> dict[str, Any] | None:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    table = document.get("tool", {}).get("unvanish")
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.unvanish must be a table, it is {_show(table)}")
    return table


def _codes(value: Any, known: Collection[str], where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ConfigError(f'{where} must be a list of codes such as ["ACT", "INI001"], it is {_show(value)}')
    _matching(value, known, where)
    return tuple(value)


def _fail_on(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} must be one of {', '.join(FAIL_ON)}, it is {_show(value)}")
    _refuse_unknown(value, FAIL_ON, f"{where} cannot be", "it is one of")
    return value


def _rule_settings(table: Any, rule: Rule, where: str) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} must be a table of settings, it is {_show(table)}")
    given = {key.replace("-", "_"): value for key, value in table.items()}
    for name, value in given.items():
        _refuse_unknown(name, rule.settings, f"{where} has no setting", "the settings are")
        _refuse_type(value, rule.settings[name], f"{where} {name}")
    return given


def _refuse_unknown(word: Any, known: Collection[str], problem: str, listing: str) -> None:
    if not isinstance(word, str) or word not in known:
        listed = f" ({listing} {', '.join(known) or 'none'})" if len(known) <= 8 else ""
        raise ConfigError(f"{problem} {name_value(word)}{suggest(word, known)}{listed}")


def _refuse_type(value: Any, default: Any, where: str) -> None:
    """Compare a value with its default's type: an int serves as a float, a default of None takes anything."""
    wanted: Any = {float: (int, float), tuple: (list, tuple)}.get(type(default), type(default))
    same_truth = isinstance(value, bool) == isinstance(default, bool)
    if default is not None and not (isinstance(value, wanted) and same_truth):
        kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        kind = kinds.get(type(default), f"a {type(default).__name__}")
        raise ConfigError(f"{where} must be {kind} (default {default!r}), it is {_show(value)}")


def _show(value: Any) -> str:
    return f"{name_value(value)} ({type(value).__name__})"
