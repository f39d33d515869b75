"""YAML as plain data that keeps its line numbers, and the error that names file and line.

Notable:
- Only scalars, lists and mappings: a tag such as `!!python/object` is refused, so no code runs.
- A duplicate key is refused; YAML alone would keep the last one. What else is refused: `store/yaml_text.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from unvanish.store.yaml_text import YamlFault, compose, line_of, list_pairs, read_scalar, refuse_tag


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
    """A YAML text as a mapping; SpecError if it is not a mapping, not YAML, more than data, or too large."""
    try:
        node = compose(text)
        found = None if node is None else _plain(node, {})
    except YamlFault as error:
        raise SpecError(file, error.line, error.text) from error
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


def _plain(node: yaml.Node, made: dict[int, Any]) -> Any:
    """A node as data; aliases of one anchor are the same object."""
    if isinstance(node, yaml.ScalarNode):
        return read_scalar(node)
    if id(node) in made:
        return made[id(node)]
    refuse_tag(node)
    if isinstance(node, yaml.MappingNode):
        rows = list_pairs(node)
        items = {str(key): _plain(value, made) for key, _, value in rows}
        made[id(node)] = YamlTable(items, {str(key): line_of(own) for key, own, _ in rows}, line_of(node))
    else:
        entries = [_plain(child, made) for child in node.value]
        made[id(node)] = YamlList(entries, [line_of(child) for child in node.value], line_of(node))
    return made[id(node)]
