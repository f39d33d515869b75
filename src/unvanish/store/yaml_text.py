"""YAML as plain data: a text is measured before anything in it is expanded, and only plain values come out.

Notable:
- Aliases are counted as if they were written out, without writing them out; so are their depth and length.
- No tag makes anything but text, a finite number, true, false or nothing; so no code runs.
- `1e-3` and `None` are read as a number and as nothing, although YAML 1.1 reads them as text.
- A fault has one line of text, and the number of its line in the file.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from unvanish.store.files import MEGABYTE

DEEPEST = 100  # lists and mappings within each other
MOST = 200_000  # values, aliases written out; twenty letters of a text count as one more
LETTERS = 20
DIGITS = 100  # of a number
WHOLE = 2**63  # whole numbers are smaller than this
MAP, SEQUENCE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"
EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
TEXTS = ("str", "timestamp", "value", "merge")
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTRUCTOR: Any = yaml.constructor.SafeConstructor()


class YamlFault(ValueError):
    """A text that is not YAML, is more than data, or is too large; `line` is 0 if no line is to blame."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(line, text)
        self.line, self.text = line, text

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


def compose(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, None for an empty one; YamlFault if it is not YAML, or too large."""
    if len(text) > MEGABYTE:
        size = f"{len(text) / MEGABYTE:,.1f} million letters"
        raise YamlFault(0, f"{size} are too many: at most {MEGABYTE / 1e6:g} million are read")
    try:
        _measure(text)
        found: yaml.Node | None = yaml.compose(text, Loader=Loader)
        if found is not None:
            _refuse_keys(found, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"{error.problem or error.context}"
        raise YamlFault(mark.line + 1 if mark else 0, f"this is not YAML: {problem}") from error
    except yaml.YAMLError as error:
        raise YamlFault(0, f"this is not YAML: {str(error).splitlines()[0]}") from error
    return found


def parse(text: str) -> Any:
    """A YAML text as dicts, lists and scalars; YamlFault names the line."""
    node = compose(text)
    return None if node is None else build(node, {})


def build(node: yaml.Node, made: dict[int, Any]) -> Any:
    """A node as dicts, lists and scalars; aliases of one anchor are the same object, kept in `made`."""
    if isinstance(node, yaml.ScalarNode):
        return read_scalar(node)
    if id(node) not in made:
        refuse_tag(node)
        if isinstance(node, yaml.MappingNode):
            made[id(node)] = {key: build(value, made) for key, _, value in list_pairs(node)}
        else:
            made[id(node)] = [build(child, made) for child in node.value]
    return made[id(node)]


def list_pairs(node: yaml.MappingNode) -> list[tuple[Any, yaml.Node, yaml.Node]]:
    """Every key of a mapping with its node and its value's; merged ones come first."""
    try:
        _CONSTRUCTOR.flatten_mapping(node)
    except yaml.MarkedYAMLError as error:
        raise YamlFault(line_of(node), f"this is not YAML: {error.problem}") from error
    return [(read_scalar(key), key, value) for key, value in node.value]


def read_scalar(node: yaml.ScalarNode) -> Any:
    """The text, number, truth or nothing of a node; YamlFault for any other tag, and for endless numbers."""
    name, text = node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value)
    if name in TEXTS:
        plain = not node.style  # "" from one parser, None from the other
        if plain and EXPONENT.fullmatch(text[: DIGITS + 1]):
            return _number(node, text, float)
        return None if plain and text == "None" else text
    readers = {
        "null": lambda _: None,
        "bool": lambda _: _CONSTRUCTOR.construct_yaml_bool(node),
        "int": lambda _: _CONSTRUCTOR.construct_yaml_int(node),
        "float": lambda _: _CONSTRUCTOR.construct_yaml_float(node),
    }
    if name not in readers:
        refuse_tag(node)
    return _number(node, text, readers[name])


def refuse_tag(node: yaml.Node) -> None:
    """YamlFault unless a node is a plain list or mapping."""
    if node.tag not in (MAP, SEQUENCE):
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        raise YamlFault(line_of(node), f"the tag {tag} is refused: a YAML is data, not code")


def line_of(node: yaml.Node) -> int:
    """The line of a node, counted from 1."""
    return int(node.start_mark.line) + 1


def _number(node: yaml.ScalarNode, text: str, read: Any) -> Any:
    if len(text) > DIGITS:
        raise YamlFault(line_of(node), f"a number of {len(text):,} digits is too long")
    try:
        value = read(text)
    except (ValueError, KeyError, OverflowError, IndexError) as error:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        raise YamlFault(line_of(node), f"{text!r} is no value of the kind {kind}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise YamlFault(line_of(node), f"{text} is not a finite number")
    if isinstance(value, int) and abs(value) >= WHOLE:
        raise YamlFault(line_of(node), f"the number {text} is too large")
    return value


def _refuse_keys(node: yaml.Node, seen: set[int]) -> None:
    """YamlFault for a key that is no scalar, or is given twice in one mapping."""
    if isinstance(node, yaml.ScalarNode) or id(node) in seen:
        return
    seen.add(id(node))
    if not isinstance(node, yaml.MappingNode):
        for child in node.value:
            _refuse_keys(child, seen)
        return
    lines: dict[Any, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlFault(line_of(key_node), "a key must be a word or a number")
        if not key_node.tag.endswith(":merge"):
            key, line = read_scalar(key_node), line_of(key_node)
            if key in lines:
                raise YamlFault(line, f"{key!r} is given twice (first on line {lines[key]})")
            lines[key] = line
        _refuse_keys(value_node, seen)


def _measure(text: str) -> None:
    """YamlFault if a text is too deep or too long once its aliases are written out."""
    sizes: dict[str, tuple[int, int]] = {}  # of each anchor that is closed: values, depth
    stack: list[list[Any]] = [["", 0, 0]]  # of each open list or mapping: anchor, values, depth inside
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append([event.anchor, 1, 0])
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size, depth = stack.pop()
            _add(event, stack, sizes, anchor, size, depth + 1)
        elif isinstance(event, yaml.ScalarEvent):
            _add(event, stack, sizes, event.anchor, 1 + len(event.value) // LETTERS, 0)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, *_ in stack):
                raise YamlFault(_line(event), "an anchor that contains itself cannot be read")
            size, depth = sizes.get(event.anchor or "", (1, 0))  # an unknown one is refused when composed
            _add(event, stack, sizes, None, size, depth)
        if len(stack) > DEEPEST:
            raise YamlFault(_line(event), f"more than {DEEPEST} lists and mappings lie within each other")


def _add(
    event: yaml.Event,
    stack: list[list[Any]],
    sizes: dict[str, tuple[int, int]],
    anchor: str | None,
    size: int,
    depth: int,
) -> None:
    """Count a value that has ended."""
    if anchor:
        sizes[anchor] = size, depth
    outer = stack[-1]
    outer[1] += size
    outer[2] = max(outer[2], depth)
    if len(stack) + depth > DEEPEST:
        raise YamlFault(_line(event), f"more than {DEEPEST} lists and mappings lie within each other")
    if outer[1] > MOST:
        raise YamlFault(_line(event), f"with its aliases written out it holds more than {MOST:,} values")


def _line(event: yaml.Event) -> int:
    mark: Any = event.start_mark
    return int(mark.line) + 1
