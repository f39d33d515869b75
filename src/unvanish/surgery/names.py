"""Names of a model's parts: labels of sites, full names of parameters, and both as Python expressions.

Notable: a part may be called anything but may not end a statement: what is no identifier becomes a text in
quotes, and in comments what cannot be seen is escaped.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Collection, Sequence
from itertools import pairwise

from unvanish.core.names import show

COUNTED = re.compile(r"([A-Za-z_][A-Za-z_.]*|)(0|[1-9]\d{0,8})(\.[\w.]*|)", re.ASCII)
LEAST = 3  # names that count up, to be shortened


def quote(name: str) -> str:
    """A name as a Python text in double quotes."""
    return show(json.dumps(name, ensure_ascii=False))


def is_word(name: str) -> bool:
    """Whether a name can stand in code: an ASCII identifier that is no keyword."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)


def parameter_expression(name: str) -> str:
    """`model.head.weight`, or `model.get_parameter("0.weight")` if a part is not an identifier."""
    if all(map(is_word, name.split("."))):
        return f"model.{name}"
    return f"model.get_parameter({quote(name)})"


def list_names(names: Sequence[str]) -> str:
    """All names as one Python expression; those that count up are counted: `[f"{k}.weight" for k in ...]`."""
    groups: dict[tuple[str, str], list[int]] = {}
    for name in names:
        if found := COUNTED.fullmatch(name):
            groups.setdefault((found[1], found[3]), []).append(int(found[2]))
    parts, done = [], set()
    for name in names:
        found = COUNTED.fullmatch(name)
        key = (found[1], found[3]) if found else ("", "")
        numbers = groups.get(key, []) if found else []
        steps = {b - a for a, b in pairwise(numbers)}
        if len(numbers) < LEAST or len(steps) > 1 or min(steps) < 1:
            parts.append(quote(name))
        elif key not in done:
            done.add(key)
            first, step = numbers[0], steps.pop()
            by = f", {step}" if step > 1 else ""
            begin = f"{first}, " if first or by else ""
            span = f"range({begin}{numbers[-1] + 1}{by})"
            parts.append(f'f"{key[0]}{{k}}{key[1]}" for k in {span}')
    if len(parts) == 1:
        return f"[{parts[0]}]"
    return f"[{', '.join(f'*({part})' if part.startswith('f') else part for part in parts)}]"


def each_parameter(names: tuple[str, ...], line: str, most: int = 6) -> list[str]:
    """A line of code for each parameter, `{}` standing for it; a loop over their names if there are many."""
    if len(names) <= most:
        return [line.replace("{}", parameter_expression(name)) for name in names]
    loop = line.replace("{}", "model.get_parameter(name)")
    return [f"for name in {list_names(names)}:", f"    {loop}"]


def module_expression(path: str) -> str:
    """`model`, `model.head`, or `model.get_submodule("0")` if a part is not an identifier."""
    if path in ("", "(model)"):
        return "model"
    return f"model.{path}" if all(map(is_word, path.split("."))) else f"model.get_submodule({quote(path)})"


def split_calls(targets: Sequence[str], kinds: Collection[str]) -> tuple[list[str], list[str]]:
    """(paths of modules, labels of calls in a forward): a call's label ends with the name of a function."""
    calls = [t for t in targets if split_label(t)[0].rpartition(".")[2] in kinds]
    return [t for t in dict.fromkeys(split_label(t)[0] for t in targets if t not in calls)], calls


def shorten(names: tuple[str, ...], most: int = 4) -> str:
    """The first names, then an ellipsis: `a, b, c, d, ...`."""
    return ", ".join([*map(show, names[:most]), *(["..."] if len(names) > most else [])])


def full_name(path: str, name: str) -> str:
    """A parameter's name in the model, from its module's path."""
    return f"{path}.{name}" if path else name


def split_label(label: str) -> tuple[str, int]:
    """A site's path and its call index: "a.tanh[3]" is ("a.tanh", 3)."""
    if label.endswith("]") and "[" in label:
        path, _, index = label[:-1].rpartition("[")
        return path, int(index) if index.isdigit() else 0
    return label, 0
