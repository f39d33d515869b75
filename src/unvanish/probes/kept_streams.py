"""What changes while it is used: arrays, generators of random numbers, streams, iterators.

Notable: what cannot be put back is said, unless the object itself shows that it was not used.
"""

from __future__ import annotations

import io
import random
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from unvanish.probes.kept_objects import Seeker, has_state, keep_attributes
from unvanish.probes.kept_tensors import LARGE


def keep_array(reach: Seeker, value: np.ndarray[Any, Any]) -> None:
    """A NumPy array."""
    if value.dtype.hasobject:
        reach.meet_all(value.ravel().tolist(), value)
    if value.nbytes > LARGE:
        total = _sum(value)

        def warn() -> str | None:
            changed = _sum(value) != total
            return f"written to, and too large to be copied ({value.nbytes >> 20:,} MB)" if changed else None

        reach.note(warn, value)
        return
    kept, shape, strides = value.copy(), value.shape, value.strides
    exact, writeable = value.tobytes(), value.flags.writeable

    def undo() -> None:
        if value.shape != shape:
            value.shape = shape
        if value.strides != strides or value.tobytes() != exact or value.dtype.hasobject:
            if not value.flags.writeable:
                value.flags.writeable = True
            value[...] = kept
        if value.flags.writeable != writeable:
            value.flags.writeable = writeable

    reach.note(undo, value)
    if value.base is not None:
        reach.meet(value.base, value, "base")


def _sum(value: np.ndarray[Any, Any]) -> int:
    return int(np.ascontiguousarray(value).view(np.uint8).sum(dtype=np.int64))


def keep_generator(reach: Seeker, value: Any) -> None:
    """A generator of random numbers: of torch, NumPy or Python."""
    if isinstance(value, torch.Generator):
        state: Any = value.get_state()
        reach.note(lambda: _give(value.set_state, state), value)
    elif isinstance(value, random.Random):
        if type(value).getstate is not random.SystemRandom.getstate:
            python = value.getstate()
            reach.note(lambda: _give(value.setstate, python), value)
    elif isinstance(value, np.random.RandomState):
        older = value.get_state(legacy=False)
        reach.note(lambda: _give(value.set_state, older), value)
    else:
        bits = value.bit_generator if isinstance(value, np.random.Generator) else value
        numbers = bits.state
        reach.note(lambda: setattr(bits, "state", numbers), value)
    keep_attributes(reach, value)


def _give(setter: Callable[[Any], Any], state: Any) -> None:
    setter(state)


def keep_stream(reach: Seeker, value: Any) -> None:
    """A file in memory, with its contents; of a file on disk, the place in it."""
    if value.closed:
        return
    if not isinstance(value, (io.BytesIO, io.StringIO)):
        _keep_file(reach, value)
        return
    contents: Any = value.getvalue()
    place = value.tell()

    def undo() -> str | None:
        if value.closed:
            return "a file that was closed"
        if value.getvalue() != contents:
            value.seek(0)
            value.truncate()
            value.write(contents)
        value.seek(place)
        return None

    reach.note(undo, value)


def _keep_file(reach: Seeker, value: Any) -> None:
    kind = type(value).__name__
    try:
        place = value.tell() if value.seekable() else None
    except (OSError, ValueError):
        place = None
    if place is None:
        reach.note(lambda: f"an open stream, {kind}", value)
        return

    def undo() -> str | None:
        if value.closed:
            return "a file that was closed"
        if value.tell() != place:
            value.seek(place)
            return "a file that was written to" if value.writable() else None
        return None

    reach.note(undo, value)


def is_open(value: Any) -> bool:
    """Whether an object is used up while it is used, as an iterator is, or leads out of the program."""
    if isinstance(value, (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)):
        return True
    module = str(getattr(type(value), "__module__", "")).partition(".")[0]
    if module in ("socket", "_socket", "ssl", "select", "subprocess", "sqlite3", "multiprocessing", "mmap"):
        return True
    return isinstance(value, Iterator) and not has_state(value)


def doubt(reach: Seeker, value: Any) -> None:
    """Say so, unless the object itself shows that it was not used."""
    before, kind = _progress(value), type(value).__name__
    what = "a generator" if kind == "generator" else f"an open {kind.replace('_', ' ')}"
    reach.note(lambda: None if before is not None and _progress(value) == before else what, value)


def _progress(value: Any) -> Any:
    """What changes if an iterator goes on; None if nothing shows it."""
    if isinstance(value, types.GeneratorType) and value.gi_frame is not None:
        frame = value.gi_frame
        return frame.f_lasti if frame.f_lasti < 10 else None  # not begun
    if type(value).__name__ in ("count", "repeat"):
        return repr(value)
    hint = getattr(value, "__length_hint__", None) or getattr(value, "qsize", None)
    return hint() if hint is not None else None


def doubt_unknown(reach: Seeker, value: Any) -> None:
    """An object of an extension, whose state cannot be seen: said, unless it is a value or seems unused."""
    if getattr(type(value), "__hash__", None) not in (object.__hash__, None):
        return
    before, name = _progress(value), f"{type(value).__module__}.{type(value).__qualname__}"
    what = f"an object of an extension, {name}"
    reach.note(lambda: None if before is not None and _progress(value) == before else what, value)
