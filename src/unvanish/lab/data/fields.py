"""The fields of a data YAML and their checks; DataError names the place of a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from unvanish.lab.data.problems import DataError

LARGEST = 10_000_000  # a number among the settings
CLASSES = 100_000
FETCH_KEYS = ("url", "to", "sha256", "md5", "bytes")
Where = Callable[[str], str]


@dataclass(frozen=True)
class Fetch:
    """One file to download: its addresses, its name here, its checksum ("sha256:..." or "md5:...")."""

    urls: tuple[str, ...]
    to: str
    checksum: str = ""
    size: int = 0


def check_known(word: Any, words: Collection[str], where: str, noun: str = "key") -> None:
    """DataError, with the nearest known word, if a word is unknown."""
    if word not in words:
        near = get_close_matches(str(word), words, 1, 0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        listed = "" if near else f"; there are {', '.join(words)}"
        raise DataError(f"{where}no {noun} {word!r}{hint}{listed}")


def check_type(value: Any, default: Any, where: str) -> None:
    """DataError unless a setting has its default's type; int serves as float, None accepts anything."""
    if default is None:
        return
    accepted: Any = {float: (int, float), tuple: (list, tuple)}.get(type(default), type(default))
    if not isinstance(value, accepted) or isinstance(value, bool) != isinstance(default, bool):
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        wanted = words.get(type(default), type(default).__name__)
        raise DataError(f"{where} must be {wanted} (default {default!r}), it is {str(value)[:80]!r}")
    if isinstance(value, int | float) and not -1 <= value <= LARGEST:
        raise DataError(f"{where} must lie between 0 and {LARGEST:,}, it is {value!r}")


def parse_paths(value: Any, where: str) -> tuple[str, ...]:
    """A text or a list of texts."""
    listed = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if not all(isinstance(v, str | Path) for v in listed):
        raise DataError(f"{where} must be a path or a list of paths, it is {str(value)[:80]!r}")
    return tuple(map(str, listed))


def parse_names(values: Mapping[str, Any], where: Where) -> tuple[str, ...]:
    """Class names from a list or a map {0: name}; `nc` must agree with them."""
    given, nc = values.get("names"), values.get("nc")
    if nc is not None and (not isinstance(nc, int) or isinstance(nc, bool) or not 1 <= nc <= CLASSES):
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


def parse_downloads(value: Any, where: str) -> tuple[Fetch, ...]:
    """The files to fetch: an address, a mapping, or a list of these."""
    listed = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return tuple(parse_fetch(entry, where) for entry in listed)


def parse_fetch(entry: Any, where: str) -> Fetch:
    """One file to fetch; DataError for an address that is not http(s), and for a script."""
    fields = {"url": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, Mapping) or "url" not in fields:
        raise DataError(f"{where} must be addresses or mappings with url and sha256, it is {entry!r}")
    for key in fields:
        check_known(key, FETCH_KEYS, f"{where}: ")
    urls = fields["url"] if isinstance(fields["url"], list) else [fields["url"]]
    for url in urls:
        if urlparse(str(url)).scheme not in ("http", "https") or "\n" in str(url).strip():
            raise DataError(f"{where}: {url!r} is not an http(s) address; scripts in a YAML are never run")
    to = str(fields.get("to") or Path(urlparse(urls[0].strip()).path).name)
    if Path(to).is_absolute() or ".." in Path(to).parts:
        raise DataError(f"{where}: `to: {to}` must stay inside the data set's folder")
    sums = [f"{kind_}:{fields[kind_]}".lower() for kind_ in ("sha256", "md5") if fields.get(kind_)]
    return Fetch(tuple(u.strip() for u in urls), to, sums[0] if sums else "", int(fields.get("bytes", 0)))
