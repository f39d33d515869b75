"""Which torch functions an eye looks at: their kinds, looked up once a function."""

from __future__ import annotations

from typing import Any

from unvanish.probes import operations
from unvanish.probes.live.routing import CHOICES

KINDS: dict[Any, str] = {}  # of each torch function, "" if it does not matter
MOST = 4096  # functions made on the fly would fill it


def may_matter(func: Any) -> bool:
    """Whether a function is not known to be of no interest."""
    try:
        return KINDS.get(func) != ""
    except Exception:  # it is asked again within the guard
        return True


def find_kind(func: Any) -> str:
    """The name of an activation, an attention, a sum or a choice; empty for anything else.

    A function that cannot be looked up, as an object of the program's that has no hash, is something else.
    """
    try:
        kind = KINDS.get(func)
    except TypeError:
        return ""
    if kind is None:
        name = operations.plain_name(getattr(func, "__name__", ""))
        wanted = name in operations.ACTIVATIONS or name in operations.ATTENTION or name == "add"
        if len(KINDS) >= MOST:
            KINDS.clear()
        kind = KINDS[func] = name if wanted or name in CHOICES else ""
    return kind
