"""Objects put back in place: containers, plain objects, functions, classes.

Notable: a `Keep` notes what puts one object back, and meets what it reaches. Base classes' own methods are
used, so that what a subclass does with an item is not done.
"""

from __future__ import annotations

import contextlib
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from operator import is_
from typing import Any, Protocol

from unvanish.probes.kept_tensors import Undo, refill_dict


class Seeker(Protocol):
    """Who follows what is reached."""

    def meet(self, value: Any, holder: Any, name: str) -> None:
        """Put an object on the list of what has to be kept."""

    def meet_all(self, values: Iterable[Any], holder: Any) -> None:
        """The same for the items of a container."""

    def note(self, step: Undo, value: Any) -> None:
        """Add what puts an object back."""


Keep = Callable[[Any, Any], None]  # by a Seeker: keeps one object
ABSENT = object()


def keep_dict(reach: Seeker, value: dict[Any, Any]) -> None:
    """A dict of any kind."""
    kept: dict[Any, Any] = OrderedDict(value) if isinstance(value, OrderedDict) else dict(dict.items(value))
    factory = value.default_factory if isinstance(value, defaultdict) else None

    def undo() -> None:
        refill_dict(value, kept)
        if isinstance(value, defaultdict) and value.default_factory is not factory:
            value.default_factory = factory

    reach.note(undo, value)
    reach.meet_all(kept, value)
    for key, item in kept.items():
        reach.meet(item, value, f"[{key!r}]")
    keep_attributes(reach, value)


def keep_sequence(reach: Seeker, value: Any) -> None:
    """A list, or a deque."""
    base: Any = list if isinstance(value, list) else deque
    kept = list(base.__iter__(value))

    def undo() -> None:
        if base.__len__(value) == len(kept) and all(map(is_, base.__iter__(value), kept)):
            return
        base.clear(value)
        base.extend(value, kept)

    reach.note(undo, value)
    reach.meet_all(kept, value)
    keep_attributes(reach, value)


def keep_set(reach: Seeker, value: set[Any]) -> None:
    """A set."""
    kept = set(value)

    def undo() -> None:
        if len(value) != len(kept) or any(item not in kept for item in set.__iter__(value)):
            set.clear(value)
            set.update(value, kept)

    reach.note(undo, value)
    reach.meet_all(kept, value)
    keep_attributes(reach, value)


def keep_items(reach: Seeker, value: Any) -> None:
    """What cannot change itself, but holds others: a tuple, a frozen set."""
    reach.meet_all(value, value)
    keep_attributes(reach, value)


def keep_bytes(reach: Seeker, value: Any) -> None:
    """A bytearray, or an `array.array`."""
    kept = value[:]

    def undo() -> None:
        if value != kept:
            value[:] = kept

    reach.note(undo, value)


def keep_function(reach: Seeker, value: types.FunctionType) -> None:
    """What a function of the user holds: its closure, its default arguments, its attributes."""
    if str(value.__module__).partition(".")[0] in ("torch", "unvanish"):
        return
    for cell in value.__closure__ or ():
        reach.meet(cell, value, "closure")
    for held in (value.__defaults__, value.__kwdefaults__, value.__dict__):
        if held:
            reach.meet(held, value, "")


def keep_cell(reach: Seeker, value: types.CellType) -> None:
    """A variable of a closure."""
    try:
        held = value.cell_contents
    except ValueError:
        held = ABSENT

    def undo() -> None:
        if held is not ABSENT:
            value.cell_contents = held
        else:
            with contextlib.suppress(ValueError):
                del value.cell_contents

    reach.note(undo, value)
    if held is not ABSENT:
        reach.meet(held, value, "")


def keep_method(reach: Seeker, value: Any) -> None:
    """A bound method: what it is bound to."""
    reach.meet(value.__self__, value, "")
    reach.meet(getattr(value, "__func__", None), value, "")


def keep_partial(reach: Seeker, value: Any) -> None:
    """A function with some of its arguments."""
    for name in ("func", "args", "keywords"):
        reach.meet(getattr(value, name), value, name)
    keep_attributes(reach, value)


def keep_cache(reach: Seeker, value: Any) -> None:
    """A function that remembers its results."""
    before = value.cache_info()[1:]
    function = getattr(value, "__wrapped__", None)
    reach.meet(function, value, "")
    reach.note(lambda: None if value.cache_info()[1:] == before else "a cache of results", value)


def keep_object(reach: Seeker, value: Any) -> None:
    """A plain object: its attributes and slots, and its class."""
    kind = type(value)

    def undo() -> None:
        if type(value) is not kind:
            object.__setattr__(value, "__class__", kind)

    if kind.__flags__ & (1 << 9):  # a class made by Python
        reach.note(undo, value)
    keep_attributes(reach, value)


def keep_attributes(reach: Seeker, value: Any) -> None:
    """The attributes and slots of an object."""
    own = _dictionary(value)
    if own is not None:
        before = own.copy()

        def refill() -> None:
            refill_dict(_dictionary(value), before)

        reach.note(refill, value)
        for name, item in before.items():
            reach.meet(item, value, str(name))
    slots = [(name, place) for name, place in _slots(type(value))]
    if not slots:
        return
    filled = [(place, _get(place, value)) for _, place in slots]

    def undo() -> None:
        for place, item in filled:
            if _get(place, value) is item:
                continue
            if item is ABSENT:
                place.__delete__(value)
            else:
                place.__set__(value, item)

    reach.note(undo, value)
    for (name, _), (_, item) in zip(slots, filled, strict=True):
        if item is not ABSENT:
            reach.meet(item, value, name)


def _dictionary(value: Any) -> dict[str, Any] | None:
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return own if isinstance(own, dict) else None


def _slots(kind: type) -> Iterator[tuple[str, Any]]:
    for owner in kind.__mro__:
        if "__slots__" in vars(owner):
            for name, place in vars(owner).items():
                if isinstance(place, types.MemberDescriptorType):
                    yield name, place


def _get(place: Any, value: Any) -> Any:
    try:
        return place.__get__(value)
    except AttributeError:
        return ABSENT


def has_state(value: Any) -> bool:
    """Whether an object has attributes or slots."""
    return _dictionary(value) is not None or next(_slots(type(value)), None) is not None


def keep_class(reach: Seeker, kind: type) -> None:
    """The attributes of a class, but for what Python itself keeps there."""
    before = {name: value for name, value in vars(kind).items() if _is_own(name)}

    def undo() -> None:
        now = {name: value for name, value in vars(kind).items() if _is_own(name)}
        for name in now.keys() - before.keys():
            type.__delattr__(kind, name)
        for name, value in before.items():
            if now.get(name, ABSENT) is not value:
                type.__setattr__(kind, name, value)

    reach.note(undo, kind)
    for name, value in before.items():
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        reach.meet(value, kind, name)


def _is_own(name: str) -> bool:
    return not (name.startswith("__") and name.endswith("__")) and not name.startswith("_abc_")
