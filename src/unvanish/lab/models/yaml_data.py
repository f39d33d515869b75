"""YAML as plain data that keeps its line numbers, and the error that names file and line.

Notable:
- Only scalars, lists and mappings: a tag such as `!!python/object` is refused, so no code runs.
- A duplicate key is refused; YAML alone would keep the last one.
- `1e-3` and `None` are read as a number and as nothing, although YAML 1.1 reads them as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

MAP, SEQUENCE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"
EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


class SpecError(ValueError):
    """A model's YAML that cannot be used: file, line, what is wrong there and what would be right."""

    def __init__(self, file: str, line: int, text: str) -> None:
        super().__init__(file, line, text)
        self.file, self.line, self.text = file, line, text

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class YamlTable(dict[str, Any]):
    """A mapping; `lines` holds the line of each key, `line` its own (0: not from a file)."""

    def __init__(self, items: Mapping[str, Any], lines: Mapping[str, int], line: int) -> None:
        super().__init__(items)
        self.lines, self.line = dict(lines), line

    def at(self, key: str) -> int:
        """The line of a key, or of the mapping if it has none."""
        return self.lines.get(key, self.line)


class YamlList(list[Any]):
    """A list; `lines` holds the line of each entry, `line` its own."""

    def __init__(self, items: Sequence[Any], lines: Sequence[int], line: int) -> None:
        super().__init__(items)
        self.lines, self.line = list(lines), line


def parse_yaml(text: str, file: str) -> YamlTable:
    """A YAML text as a mapping; SpecError if it is not a mapping, not YAML, or more than data."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        found = _plain(node, loader, file, {}) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"{error.problem or error.context}"
        raise SpecError(file, mark.line + 1 if mark else 0, f"this is not YAML: {problem}") from error
    except yaml.YAMLError as error:
        raise SpecError(file, 0, f"this is not YAML: {error}") from error
    finally:
        loader.dispose()
    if not isinstance(found, YamlTable):
        raise SpecError(
            file, 1, "a model is a mapping of keys such as `task:` and `layers:`; see `unvanish zoo`"
        )
    return found


def from_plain(data: Any) -> Any:
    """Convert plain mappings and lists to `YamlTable` and `YamlList`, without lines."""
    if isinstance(data, Mapping):
        return YamlTable({str(key): from_plain(value) for key, value in data.items()}, {}, 0)
    if isinstance(data, list | tuple):
        return YamlList([from_plain(value) for value in data], [0] * len(data), 0)
    return data


def to_plain(data: Any) -> Any:
    """Convert `YamlTable` and `YamlList` to plain dicts and lists."""
    if isinstance(data, Mapping):
        return {key: to_plain(value) for key, value in data.items()}
    return [to_plain(value) for value in data] if isinstance(data, list | tuple) else data


def _plain(node: yaml.Node, loader: yaml.SafeLoader, file: str, seen: dict[int, Any]) -> Any:
    """A node as data; aliases of one anchor are the same object, which must not contain itself."""
    if id(node) in seen:
        if seen[id(node)] is None:
            raise SpecError(file, _line(node), "an anchor that contains itself cannot be read")
        return seen[id(node)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, loader, file)
    if node.tag not in (MAP, SEQUENCE):
        raise SpecError(
            file, _line(node), f"the tag {_tag(node)} is refused: a model's YAML is data, not code"
        )
    seen[id(node)] = None
    made: Any
    if isinstance(node, yaml.MappingNode):
        made = _mapping(node, loader, file, seen)
    else:
        entries = [_plain(child, loader, file, seen) for child in node.value]
        made = YamlList(entries, [_line(child) for child in node.value], _line(node))
    seen[id(node)] = made
    return made


def _mapping(node: yaml.MappingNode, loader: yaml.SafeLoader, file: str, seen: dict[int, Any]) -> YamlTable:
    own = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
    loader.flatten_mapping(node)
    items: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise SpecError(file, _line(key_node), "a key must be a word or a number")
        key = str(_scalar(key_node, loader, file))
        if key in items and own.count(key_node.value) > 1:
            raise SpecError(file, _line(key_node), f"{key!r} is given twice (first on line {lines[key]})")
        items[key], lines[key] = _plain(value_node, loader, file, seen), _line(key_node)
    return YamlTable(items, lines, _line(node))


def _scalar(node: yaml.ScalarNode, loader: yaml.SafeLoader, file: str) -> Any:
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise SpecError(
            file, _line(node), f"the tag {_tag(node)} is refused: a model's YAML is data, not code"
        )
    if node.style is None and isinstance(node.value, str):
        if EXPONENT.fullmatch(node.value):
            return float(node.value)
        if node.value == "None":
            return None
    return loader.construct_object(node)


def _tag(node: yaml.Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
