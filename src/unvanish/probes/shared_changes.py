"""What must be off in the whole process while one thread looks, without other threads noticing.

Notable:
- A change is made by the first that needs it and undone by the last, under a lock; leaving twice does
  nothing.
- Checkpointing and warnings are asked which thread is looking: for all others they are as they were.
"""

from __future__ import annotations

import gc
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.utils.checkpoint as checkpointing

Step = Callable[[], Any]
Answer = TypeVar("Answer")


class SharedChange:
    """A change of the process that several may need at once; `prepare` gives what makes and undoes it.

    Undoing does no harm if nothing was made, or twice: an interrupt may come between any two lines.
    """

    def __init__(self, prepare: Callable[[], tuple[Step, Step]]) -> None:
        self.prepare = prepare
        self.lock = threading.RLock()  # an interrupt's handler may look too
        self.users: dict[int, int] = {}  # the thread of each
        self.undo: Step | None = None

    def enter(self, user: int) -> None:
        """Make the change, if nobody has; `user`: any number that is yours."""
        with self.lock:
            self.users[user] = threading.get_ident()
            if self.undo is None:
                make, self.undo = self.prepare()
                make()

    def concerns_us(self) -> bool:
        """Whether somebody in this thread asked for the change."""
        return threading.get_ident() in self.users.values()

    def leave(self, user: int) -> None:
        """Undo the change, if nobody else needs it; may be called again."""
        if user not in self.users and self.undo is None:
            return
        with self.lock:
            self.users.pop(user, None)
            if not self.users and self.undo is not None:
                self.undo()
                self.undo = None


def _without_recomputation() -> tuple[Step, Step]:
    """Checkpointed functions just run, in the threads that are looking."""
    frames: Any = checkpointing._checkpoint_without_reentrant_generator
    function: Any = checkpointing.CheckpointFunction
    apply, own = function.apply, vars(function).get("apply")

    def recompute_nothing(*args: Any, **options: Any) -> Any:
        return _nothing() if OPEN.concerns_us() else frames(*args, **options)

    def run_now(called: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        if not OPEN.concerns_us():
            return apply(called, preserve, *args)
        own = BLOCKS.get(threading.get_ident())
        return called(*args) if own is None else own(called, *args)

    def make() -> None:
        checkpointing._checkpoint_without_reentrant_generator = recompute_nothing
        function.apply = staticmethod(run_now)

    def undo() -> None:
        checkpointing._checkpoint_without_reentrant_generator = frames
        if own is not None:
            function.apply = own
        elif "apply" in vars(function):
            del function.apply

    return make, undo


def _nothing() -> Iterator[None]:
    yield


def _with_calls_told() -> tuple[Step, Step]:
    """Each call of a function whose backward somebody wrote is told to the thread that asked."""
    function: Any = torch.autograd.Function
    before = vars(function)["apply"]

    def apply(cls: Any, *args: Any, **named: Any) -> Any:
        tell = FUNCTIONS.get(threading.get_ident())
        if tell is not None:
            tell(cls, args, named)
        return before.__get__(None, cls)(*args, **named)

    def make() -> None:
        function.apply = classmethod(apply)

    def undo() -> None:
        function.apply = before

    return make, undo


def _without_collection() -> tuple[Step, Step]:
    """The collector is off: nearly all that an examination makes lives until its end."""
    return (gc.disable, gc.enable) if gc.isenabled() else (_do_nothing, _do_nothing)


def _eagerly() -> tuple[Step, Step]:
    """Nothing runs compiled; nothing to do if torch's compiler, which is heavy, was never loaded."""
    if "torch._dynamo.eval_frame" not in sys.modules:
        return _do_nothing, _do_nothing
    frames: Any = sys.modules["torch._dynamo.eval_frame"]
    before = frames._stance
    return lambda: torch.compiler.set_stance("force_eager"), lambda: frames._set_stance(before)


def _do_nothing() -> None:
    pass


class _Lookers(type):
    """Every category of warnings is one of these in a thread that is looking, and none is in others."""

    def __subclasscheck__(cls, category: type) -> bool:
        return SILENCE.concerns_us()


class Overheard(Warning, metaclass=_Lookers):
    """What is warned of while somebody looks; nobody hears of it."""


class Ear:
    """Stands for the text of a filter, and hears every warning that the filter is asked about."""

    def match(self, text: str) -> bool:
        """Tell the listener of this thread, if it has one; the filter fits any text but our own."""
        if text.startswith("unvanish: "):
            return False
        tell = LISTENERS.get(threading.get_ident())
        if tell is not None:
            tell(text)
        return True


# by thread: what runs a checkpointed function; what is told of calls; what is told of warnings
BLOCKS: dict[int, Callable[..., Any]] = {}
FUNCTIONS: dict[int, Callable[..., None]] = {}
LISTENERS: dict[int, Callable[[str], None]] = {}
FILTER = ("ignore", Ear(), Overheard, None, 0)


def _quietly() -> tuple[Step, Step]:
    """No warning of a thread that is looking is shown, or remembered as shown."""
    table: Any = warnings.filters

    def undo() -> None:
        tables: Any = (table, warnings.filters)
        for each in tables:
            for place in [i for i, entry in enumerate(each) if entry is FILTER][::-1]:
                del each[place]

    return lambda: table.insert(0, FILTER), undo


SILENCE, OPEN = SharedChange(_quietly), SharedChange(_without_recomputation)
TOLD = SharedChange(_with_calls_told)
QUIET = (SILENCE, SharedChange(_without_collection))  # what is off while a model runs as it does for its user
EAGER = (*QUIET, SharedChange(_eagerly))
ALL = (*EAGER, OPEN, TOLD)


@contextmanager
def ask(table: dict[int, Answer], answer: Answer) -> Iterator[None]:
    """An entry of this thread in one of the tables, while the block runs."""
    me = threading.get_ident()
    before = table.get(me)
    table[me] = answer
    try:
        yield
    finally:
        if before is None:
            table.pop(me, None)
        else:
            table[me] = before
