"""Names of a model's parts: labels of sites, full names of parameters, and both as Python expressions.

Notable: a part may be called anything but may not end a statement: what is no identifier becomes a text in
quotes, and in comments what cannot be seen is escaped.
"""

from __future__ import annotations

import json
import keyword

from unvanish.core.names import show


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


def list_names(names: tuple[str, ...], most: int = 4) -> str:
    """The first names and their number: `["a", "b", ...]  # 30 of them`."""
    shown = ", ".join(map(quote, names[:most]))
    return f"[{shown}, ...]  # {len(names)} of them" if len(names) > most else f"[{shown}]"


def each_parameter(names: tuple[str, ...], line: str, most: int = 6) -> list[str]:
    """A line of code for each parameter, `{}` standing for it; a loop over their names if there are many."""
    if len(names) <= most:
        return [line.replace("{}", parameter_expression(name)) for name in names]
    loop = line.replace("{}", "model.get_parameter(name)")
    return [f"names = {list_names(names)}", "for name in names:", f"    {loop}"]


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
