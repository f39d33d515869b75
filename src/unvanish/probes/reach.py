"""What a model reaches, as it is now: tensors, containers, plain objects, arrays, generators, classes.

Notable:
- Everything is put back in place, so whoever else holds it sees it as it was; aliases stay aliases.
- Followed are attributes, slots, items, closures, default arguments, bound objects, and the class attributes
  of the user's classes. Not followed are globals of modules, loggers, locks, and torch's own machinery.
- What cannot be put back is said, if it may have been touched: a generator, a file that was written to, a
  socket.
"""

from __future__ import annotations

import array
import functools
import io
import random
import sys
import threading
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.probes import kept_objects, kept_streams
from unvanish.probes.kept_objects import Keep
from unvanish.probes.kept_tensors import KeptTensors, Undo, refill_dict

PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None)))  # hold nothing, and cannot change
TABLES = ("_parameters", "_buffers", "_modules")
MOST = 300_000  # objects that are followed

# whose objects change by themselves, or only through what torch keeps in order
MACHINERY = (
    "torch.distributed",
    "torch._dynamo",
    "torch._inductor",
    "torch._functorch",
    "torch._subclasses",
    "torch.fx",
    "torch._C",
    "torch.cuda",
    "torch.profiler",
    "torch.utils.hooks",
    "unvanish.clinic.watch",  # a watch of the model goes on
    "unvanish.probes.live",
    "logging",
    "_thread",
    "re",
    "datetime",
    "decimal",
    "pathlib",
    "inspect",
    "typing",
    "enum",
    "abc",
    "importlib",
)
NOT_USERS = frozenset(sys.stdlib_module_names | {"torch", "numpy", "unvanish"})
CONSTANT = (
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.CodeType,
    range,
    slice,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    weakref.ref,
    threading.Thread,
    property,
    type(Ellipsis),
    type(NotImplemented),
)

BY_TYPE: tuple[tuple[Any, Keep], ...] = (
    (dict, kept_objects.keep_dict),
    ((list, deque), kept_objects.keep_sequence),
    (set, kept_objects.keep_set),
    ((tuple, frozenset), kept_objects.keep_items),
    ((bytearray, array.array), kept_objects.keep_bytes),
    (np.ndarray, kept_streams.keep_array),
    (
        (
            torch.Generator,
            random.Random,
            np.random.Generator,
            np.random.BitGenerator,
            np.random.RandomState,
        ),
        kept_streams.keep_generator,
    ),
    (io.IOBase, kept_streams.keep_stream),
    (types.FunctionType, kept_objects.keep_function),
    (types.CellType, kept_objects.keep_cell),
    (types.MethodType, kept_objects.keep_method),
    (functools.partial, kept_objects.keep_partial),
    (functools._lru_cache_wrapper, kept_objects.keep_cache),
)


class Reach:
    """All that some roots reach; `undo` holds what puts it back, `doubts` where something may have changed.

    `most`: bytes of a parameter or buffer whose numbers are copied, at most.
    """

    def __init__(self, most: float) -> None:
        self.tensors = KeptTensors(most)
        self.undo: list[tuple[Undo, Any]] = []
        self.seen: dict[int, Any] = {}  # by id; held, so that no id is given out again
        self.origins: dict[int, tuple[int, str]] = {}  # of an object: who led to it, and by which name
        self.waiting: list[Any] = []
        self.known: dict[type, Keep | None] = {}
        self.classes: set[type] = set()
        self.registered: set[int] = set()

    def follow(self, value: Any, name: str = "") -> None:
        """Keep a root and what it reaches."""
        self.meet(value, None, name)
        while self.waiting:
            if len(self.seen) > MOST:
                self.undo.append(
                    (lambda: f"more than {MOST:,} objects, of which the last were not kept", None)
                )
                self.waiting.clear()
                return
            self._keep(self.waiting.pop())

    def list_steps(self) -> list[tuple[Undo, Any]]:
        """What puts everything back, and whom."""
        return [*self.undo, *self.tensors.list_steps()]

    def meet(self, value: Any, holder: Any, name: str) -> None:
        """Put an object on the list of what has to be kept."""
        kind = type(value)
        if kind in PLAIN or id(value) in self.seen or (kind is tuple and PLAIN.issuperset(map(type, value))):
            return
        self.seen[id(value)] = value
        self.origins[id(value)] = (id(holder), name)
        self.waiting.append(value)

    def meet_all(self, values: Iterable[Any], holder: Any) -> None:
        """The same for the items of a container."""
        some = list(values)
        if not set(map(type, some)) <= PLAIN:
            for place, value in enumerate(some):
                self.meet(value, holder, f"[{place}]")

    def note(self, step: Undo, value: Any) -> None:
        """Add what puts an object back."""
        self.undo.append((step, value))

    def name(self, value: Any) -> str:
        """How one gets to an object from its root."""
        parts: list[str] = []
        place = id(value)
        while place in self.origins:
            place, part = self.origins[place]
            parts.append(part)
        found = ""
        for part in filter(None, reversed(parts)):
            found += part if part.startswith("[") or not found else f".{part}"
        return found

    def _keep(self, value: Any) -> None:
        kind = type(value)
        if isinstance(value, nn.Module):
            self._keep_module(value)
        elif isinstance(value, Tensor):
            reached: list[Any] = []
            self.tensors.keep(value, id(value) in self.registered, reached)
            for more in reached:
                self.meet(more, value, "grad" if isinstance(more, Tensor) else "")
        else:
            if kind not in self.known:
                self.known[kind] = self._choose(value, kind)
            keep = self.known[kind]
            if keep is not None:
                keep(self, value)
        if kind not in self.classes or isinstance(value, type):
            self._keep_classes(value if isinstance(value, type) else kind)

    def _choose(self, value: Any, kind: type) -> Keep | None:
        if issubclass(kind, CONSTANT):
            return None
        for base, keep in BY_TYPE:
            if issubclass(kind, base):
                return keep
        module = str(getattr(kind, "__module__", ""))
        if module.startswith(MACHINERY) and not issubclass(kind, threading.local):
            return None
        if kept_streams.is_open(value):
            return kept_streams.doubt
        if kept_objects.has_state(value):
            return kept_objects.keep_object
        return (
            None if module.partition(".")[0] in ("torch", "numpy", "builtins") else kept_streams.doubt_unknown
        )

    # -- modules and classes

    def _keep_module(self, module: nn.Module) -> None:
        now = vars(module)
        before, kind = now.copy(), type(module)
        empty: list[Any] = []  # most are the tables of hooks
        full: list[tuple[Any, Any]] = []
        for name, value in before.items():
            of = type(value)
            if of in PLAIN:
                continue
            if of is dict or of is OrderedDict:
                if not value:
                    empty.append(value)
                else:
                    full.append((value, value.copy()))
                    if name not in TABLES:
                        self.meet_all(value.values(), module)
            elif of is set and not value:
                empty.append(value)
            elif name not in TABLES:
                self.meet(value, module, name)
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                self.registered.add(id(tensor))
                self.meet(tensor, module, name)
        for name, child in module._modules.items():
            self.meet(child, module, name)
        if "_c" in before:
            self._keep_script(module)

        def undo() -> None:
            if type(module) is not kind:
                object.__setattr__(module, "__class__", kind)
            refill_dict(now, before)
            if any(empty):
                for value in empty:
                    value.clear()
            for table, kept in full:
                refill_dict(table, kept)

        self.note(undo, module)

    def _keep_script(self, module: Any) -> None:
        """The attributes of a scripted module, which TorchScript holds."""
        script, shape = module._c, vars(module).get("_concrete_type")
        names = list(shape.get_attributes()) if shape is not None else []
        before = {name: script.getattr(name) for name in names if script.hasattr(name)}
        plain = {n: v for n, v in before.items() if not isinstance(v, (Tensor, torch.ScriptObject))}
        for name, value in before.items():
            self.meet(value, module, name)

        def undo() -> None:
            for name, value in plain.items():
                script.setattr(name, value)

        if plain:
            self.note(undo, module)

    def _keep_classes(self, kind: type) -> None:
        """The class attributes of the user's own classes."""
        if kind in self.classes:
            return
        for each in kind.__mro__:
            if each in self.classes:
                continue
            self.classes.add(each)
            if each.__module__.partition(".")[0] not in NOT_USERS:
                kept_objects.keep_class(self, each)
