"""Whether a model is held by nothing but what watches it, or a watch by nothing but its hooks.

Notable: a watch that waits for an optimizer is held by torch's global hook, and holds its model, so neither
would go before the interpreter does. Python has no "as long as the model" for what itself holds the model; so
it is asked when another training begins.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection
from typing import Any

HELD = 4  # references to a watch while it is asked about: two loops' and two calls' own
OURS = ("unvanish.clinic.watch.", "unvanish.probes.")


class Alone:
    """Something that nothing holds."""


def is_held_by_watch_alone(thing: Any) -> bool:
    """Whether only objects that watch hold something; false if that is not known."""
    lone = Alone()  # as many calls and variables hold it
    return _count_others(thing) <= _count_others(lone)


def is_forgotten(watch: Any, hooks: Collection[Any]) -> bool:
    """Whether only step hooks, which are these functions of its class, hold a watch."""
    held = sum(1 for r in gc.get_referrers(watch) if getattr(r, "__func__", None) in hooks)
    return sys.getrefcount(watch) <= held + HELD


def _count_others(thing: Any) -> int:
    """References that are none of ours, those of the calls among them."""
    ours = 0
    for holder in gc.get_referrers(thing):
        if _is_ours(holder):
            ours += sum(1 for held in gc.get_referents(holder) if held is thing)
    return sys.getrefcount(thing) - ours


def _is_ours(holder: Any) -> bool:
    """Whether an object, or the one whose attributes a dict holds, belongs to a watch."""
    if type(holder) is dict:
        return any(
            type(owner).__module__.startswith(OURS) and getattr(owner, "__dict__", None) is holder
            for owner in gc.get_referrers(holder)
        )
    return type(holder).__module__.startswith(OURS)
