"""A pickle read as data: its opcodes are followed here, and nothing that it names is imported or called.

Notable:
- Python's unpickler asks a class what to do; here there are no classes. What a pickle would call becomes a
  `Held` with its name, its arguments and its state, and is never more than that.
- Tensors are only described (`HeldTensor`); their memory is read when somebody asks for it.
- The work is bounded: opcodes are counted, keys are words and small numbers, so no hash takes long.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

OPERATIONS = 2_000_000  # of a pickle; the largest detector needs 150,000
WHOLE = 2**53  # the largest number that is a key: beyond it hashes of integers can be made to collide
DIMENSIONS = 32  # of a tensor
KEY = 8  # entries of a tuple that is a key
REBUILT = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
MAPPINGS = ("collections.OrderedDict", "collections.defaultdict")
LISTS = ("__builtin__.set", "builtins.set", "__builtin__.frozenset", "builtins.frozenset", "torch.Size")
PLAIN = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
VALUES = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
)  # fmt: skip  # opcodes that carry their value
KEPT, READ = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")


class DamagedPickle(ValueError):
    """Bytes that are no pickle, or one that is not followed here; the text says why."""


@dataclass(eq=False)
class Held:
    """What a pickle would make by somebody's class or function: its name, and what it would be given."""

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    entries: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class HeldStorage:
    """The memory of tensors in an archive: its type's name, the name of its file, how many numbers it has."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class HeldTensor:
    """A tensor that an archive holds: where its numbers lie, its shape and its strides."""

    storage: HeldStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def follow(content: bytes) -> Any:
    """The values of a pickle, with `Held` for what is of a class; DamagedPickle if it cannot be followed."""
    machine = Machine()
    try:
        for count, (operation, value, _) in enumerate(pickletools.genops(content)):
            if count >= OPERATIONS:
                raise DamagedPickle(f"its pickle has more than {OPERATIONS:,} operations")
            if operation.name == "STOP":
                return machine.pop()
            machine.step(operation.name, value)
    except DamagedPickle:
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, UnicodeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise DamagedPickle(f"its pickle is damaged ({type(error).__name__}: {first})") from error
    raise DamagedPickle("its pickle has no end")


class Machine:
    """The stack and the memory of a pickle while it is followed."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under a mark
        self.memory: dict[int, Any] = {}
        self.acts: dict[str, Callable[[], None]] = {
            "MARK": self._mark, "POP": self._drop, "POP_MARK": self._drop_marked,
            "DUP": lambda: self.push(self.stack[-1]), "EMPTY_DICT": lambda: self.push({}),
            "EMPTY_LIST": lambda: self.push([]), "EMPTY_SET": lambda: self.push([]),
            "EMPTY_TUPLE": lambda: self.push(()), "TUPLE": lambda: self.push(tuple(self.take_marked())),
            "TUPLE1": lambda: self._tuple(1), "TUPLE2": lambda: self._tuple(2),
            "TUPLE3": lambda: self._tuple(3),
            "LIST": lambda: self.push(self.take_marked()), "FROZENSET": lambda: self.push(self.take_marked()),
            "DICT": self._mapping, "APPEND": lambda: extend(self.stack[-2], [self.pop()]),
            "APPENDS": self._extend_marked, "ADDITEMS": self._extend_marked,
            "SETITEM": self._set_one, "SETITEMS": self._set_marked, "STACK_GLOBAL": self._name,
            "REDUCE": self._call, "NEWOBJ": self._call, "NEWOBJ_EX": self._call_by_name, "OBJ": self._make,
            "BUILD": self._give_state, "BINPERSID": lambda: self.push(storage_of(self.pop())),
        }  # fmt: skip

    def push(self, value: Any) -> None:
        """Put a value on the stack that is current now."""
        self.stack.append(value)

    def pop(self) -> Any:
        """The topmost value, taken off."""
        return self.stack.pop()

    def step(self, name: str, value: Any) -> None:
        """Follow one opcode with its argument."""
        if name in KEPT or name == "MEMOIZE":
            self.memory[len(self.memory) if name == "MEMOIZE" else int(value)] = self.stack[-1]
        elif name in READ:
            self.stack.append(self.memory[int(value)])
        elif name in VALUES:
            self.stack.append(value)
        elif name in PLAIN:
            self.stack.append(PLAIN[name])
        elif name == "GLOBAL":
            self.stack.append(Held(".".join(value.split(" ", 1))))
        elif name == "INST":
            self.stack.append(Held(".".join(value.split(" ", 1)), tuple(self.take_marked())))
        elif name in self.acts:
            self.acts[name]()
        elif name not in ("PROTO", "FRAME"):
            raise DamagedPickle(f"its pickle has the operation {name}, which torch.save does not write")

    def take_marked(self) -> list[Any]:
        """The values above the last mark, taken off with it."""
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def _mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _drop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.take_marked()

    def _drop_marked(self) -> None:
        self.take_marked()

    def _tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("a tuple of more than there is")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _mapping(self) -> None:
        made: dict[Any, Any] = {}
        put(made, self.take_marked())
        self.stack.append(made)

    def _extend_marked(self) -> None:
        taken = self.take_marked()
        extend(self.stack[-1], taken)

    def _set_one(self) -> None:
        value, key = self.pop(), self.pop()
        put(self.stack[-1], [key, value])

    def _set_marked(self) -> None:
        taken = self.take_marked()
        put(self.stack[-1], taken)

    def _name(self) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(Held(f"{str(module)[:200]}.{str(name)[:200]}"))

    def _call(self) -> None:
        args, called = self.pop(), self.pop()
        self.stack.append(call(called, args if isinstance(args, tuple) else (args,)))

    def _call_by_name(self) -> None:
        self.pop()  # arguments by name, which nobody asks for
        self._call()

    def _make(self) -> None:
        called, *args = self.take_marked()
        self.stack.append(call(called, tuple(args)))

    def _give_state(self) -> None:
        state = self.pop()
        if isinstance(self.stack[-1], Held):
            self.stack[-1].state = state


def call(called: Any, args: tuple[Any, ...]) -> Any:
    """What a call would make: a plain container, the description of a tensor, or a `Held`."""
    name = called.name if isinstance(called, Held) else type(called).__name__
    if name in REBUILT:
        return tensor_of(args)
    if name in PARAMETERS and args and isinstance(args[0], HeldTensor):
        return args[0]
    if name in MAPPINGS:
        made: dict[Any, Any] = {}
        for pair in args[-1] if args and isinstance(args[-1], list) else ():
            put(made, list(pair))
        return made
    if name in LISTS:
        return list(args[0]) if args and isinstance(args[0], list | tuple) else []
    if name in ("copy_reg._reconstructor", "copyreg._reconstructor") and args and isinstance(args[0], Held):
        return Held(args[0].name)
    return Held(name, args)


def extend(target: Any, values: list[Any]) -> None:
    """Append values to a list, or hold them for what would take them."""
    if isinstance(target, Held):
        target.entries.extend(values)
    elif isinstance(target, list):
        target.extend(values)
    else:
        raise DamagedPickle(f"its pickle appends to a {type(target).__name__}")


def put(target: Any, pairs: list[Any]) -> None:
    """Set keys and values, one after the other, in a mapping, or hold them for what would take them."""
    if isinstance(target, Held):
        target.entries.extend(pairs)
        return
    if not isinstance(target, dict) or len(pairs) % 2:
        raise DamagedPickle(f"its pickle sets keys of a {type(target).__name__}")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not is_key(key):
            raise DamagedPickle(f"its pickle has a {type(key).__name__} for a key")
        target[key] = value


def is_key(key: Any, inner: bool = True) -> bool:
    """Whether a value may be a key: a word, a small number, or a few of these."""
    if isinstance(key, tuple):
        return inner and len(key) <= KEY and all(is_key(entry, False) for entry in key)
    if isinstance(key, int):
        return abs(key) <= WHOLE
    return key is None or isinstance(key, str | bytes | float | Held)


def storage_of(reference: Any) -> HeldStorage:
    """The memory that a reference to a file of the archive means."""
    fits = isinstance(reference, tuple) and len(reference) == 5 and reference[0] == "storage"
    _, kind, key, _, count = reference if fits else (0, None, None, 0, -1)
    if not (isinstance(kind, Held) and isinstance(key, str) and is_count(count)):
        raise DamagedPickle("its pickle refers to something that is no memory of tensors")
    return HeldStorage(kind.name, key, count)


def tensor_of(args: tuple[Any, ...]) -> HeldTensor:
    """The tensor that the arguments of torch's rebuilding function describe."""
    storage, offset, *sizes = args[:4] if len(args) >= 4 else (None, 0, 0, 0)
    shape, strides = (tuple(s) if isinstance(s, list | tuple) else (-1,) for s in sizes)
    fits = is_count(offset) and len(shape) == len(strides) <= DIMENSIONS
    if not isinstance(storage, HeldStorage) or not fits or not all(map(is_count, shape + strides)):
        raise DamagedPickle("its pickle describes a tensor in a way that is not known")
    return HeldTensor(storage, offset, shape, strides)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 that memory can have."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= WHOLE
