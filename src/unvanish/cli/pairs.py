"""Arguments as YOLO users type them: `epochs=3 lr0=1e-3 cos_lr`, and as flags: `--epochs 3 --no-val`.

Notable: values are read as YAML's plain scalars and lists, so `freeze=[0,1]`, `val=false` and `1e-3` mean
what they look like; nothing is evaluated.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import yaml

from unvanish.cli.errors import CallError

LENGTH = 4000  # letters of a value that may be more than a text


def read_pairs(words: Sequence[str], texts: Container[str] = ()) -> dict[str, Any]:
    """Names and values, those of `texts` as typed; CallError for a word that is neither a pair nor a flag."""
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if not name or (not equals and not word.startswith("--")):
            raise CallError(f"{word!r} is not an argument; write name=value, as in epochs=3, or --epochs 3")
        if equals:
            found[name] = text if name in texts else read_value(text)
        elif rest and not rest[0].startswith("--") and "=" not in rest[0]:
            text = rest.pop(0)
            found[name] = text if name in texts else read_value(text)
        elif name.startswith("no_"):
            found[name.removeprefix("no_")] = False
        else:
            found[name] = True
    return found


def read_value(text: str) -> Any:
    """The value of a text: true or false, a number, a list, none, else the text itself."""
    if set(text) & set("&*!") or len(text) > LENGTH or "[" in text[1:]:
        return text  # nothing that an argument may be: an alias, a tag, a list of lists
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # the latter by a date that does not exist, or too many digits
        return text
    if isinstance(found, str):
        try:
            return float(found)  # 1e-3 is text to YAML 1.1
        except ValueError:
            return found
    return found if isinstance(found, bool | int | float | list) else None if found is None else text
