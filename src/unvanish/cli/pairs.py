"""Arguments as YOLO users type them: `epochs=3 lr0=1e-3 cos_lr`, and as flags: `--epochs 3 --no-val`.

Notable: values are read as YAML's plain scalars and lists, so `freeze=[0,1]`, `val=false` and `1e-3` mean
what they look like; nothing is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from unvanish.cli.errors import CallError


def read_pairs(words: Sequence[str]) -> dict[str, Any]:
    """Names and values; CallError for a word that is neither a pair nor a flag."""
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if not name or (not equals and not word.startswith("--")):
            raise CallError(f"{word!r} is not an argument; write name=value, as in epochs=3, or --epochs 3")
        if equals:
            found[name] = read_value(text)
        elif rest and not rest[0].startswith("--") and "=" not in rest[0]:
            found[name] = read_value(rest.pop(0))
        elif name.startswith("no_"):
            found[name.removeprefix("no_")] = False
        else:
            found[name] = True
    return found


def read_value(text: str) -> Any:
    """The value of a text: true or false, a number, a list, none, else the text itself."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(found, str):
        try:
            return float(found)  # 1e-3 is text to YAML 1.1
        except ValueError:
            return found
    return found if isinstance(found, bool | int | float | list) else None if found is None else text
