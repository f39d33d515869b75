"""Hearing of every backward of the process: where it begins, and that it has ended.

Notable:
- torch has no public way to be told of a backward. All of them, `loss.backward()`, Accelerate's, Lightning's,
  `torch.autograd.backward`, call one function of `torch.autograd`; while somebody listens, ours stands in its
  place, and calls it. The last one to go puts it back.
- A function mode of ours would be at work while `loss.backward()` runs, and could not be taken off there.
  While `Unhandled` is open, a backward is handed to no mode of ours.
- Gradients that are only asked for (`torch.autograd.grad`) and backwards within a backward (checkpoints) are
  not told.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from unvanish.probes.compositions import find_overrides
from unvanish.probes.live.guard import WatchEntry

NAME = "_engine_run_backward"
INPUTS = 3  # place of the tensors that alone shall get a gradient, among the other arguments
_find_task = torch._C._current_graph_task_id  # -1 outside of a backward
_listening: list[BackwardListener] = []  # each step is one operation, so no lock could be left locked
_found: dict[str, Any] = {}  # what stood there before
_open: list[Unhandled] = []
UNARY, SEVERAL = "has_torch_function_unary", "has_torch_function"


class BackwardListener:
    """Calls `begins(roots, chosen)` before each backward and `ends(failed)` after it; both know us weakly.

    `chosen`: whether only some tensors shall get a gradient. If `begins` says so, it hears of the end of a
    backward that fails alone.
    """

    def __init__(self, begins: WatchEntry, ends: WatchEntry) -> None:
        self.begins, self.ends = begins, ends

    def listen(self) -> bool:
        """Begin; whether this torch can be listened to."""
        before = vars(torch.autograd).get(NAME)
        if before is None:
            return False
        if before is not _run_backward:
            _found[NAME] = before
        _listening.append(self)
        setattr(torch.autograd, NAME, _run_backward)
        return True

    def fail(self, error: Exception) -> None:
        """It cannot be told of a backward that begins."""
        self.begins.fail(error)

    def remove(self) -> None:
        """Stop; harmless when repeated. If something else stands there now, it stays."""
        if self in _listening:
            _listening.remove(self)
        if not _listening and vars(torch.autograd).get(NAME) is _run_backward:
            setattr(torch.autograd, NAME, _found[NAME])


def _run_backward(roots: Any, *args: Any, **named: Any) -> Any:
    run = _found[NAME]
    listening: tuple[BackwardListener, ...] = ()
    chosen = False
    try:
        if _listening and named.get("accumulate_grad") and _find_task() == -1:
            listening, chosen = tuple(_listening), len(args) > INPUTS and bool(args[INPUTS])
    except Exception as error:
        for one in tuple(_listening):
            one.fail(error)
    waiting = [one for one in listening if not one.begins(roots, chosen)]
    try:
        result = run(roots, *args, **named)
    except BaseException:
        for one in listening:
            one.ends(True)
        raise
    for one in waiting:
        one.ends(False)
    return result


class Unhandled:
    """Hands backwards to no function mode of ours between `open` and `close`."""

    def open(self) -> None:
        """Begin."""
        one, some = vars(torch._tensor), vars(torch.autograd)
        if UNARY in one and one[UNARY] is not _ask_of_one:
            _found[UNARY] = one[UNARY]
        if SEVERAL in some and some[SEVERAL] is not _ask_of_some:
            _found[SEVERAL] = some[SEVERAL]
        _open.append(self)
        one.update({UNARY: _ask_of_one} if UNARY in _found else {})
        some.update({SEVERAL: _ask_of_some} if SEVERAL in _found else {})

    def close(self) -> None:
        """Put back what was there before; harmless when repeated. The last one to close does it."""
        if all(other is self for other in _open):
            tables = (vars(torch._tensor), UNARY, _ask_of_one), (vars(torch.autograd), SEVERAL, _ask_of_some)
            for table, name, own in tables:
                if table.get(name) is own:
                    table[name] = _found[name]
        if self in _open:
            _open.remove(self)


def _ask_of_one(tensor: Any) -> bool:
    try:
        if sys._getframe(1).f_code.co_name == "backward":
            return find_overrides(tensor)
    except Exception:  # it goes on as it would without us
        return bool(_found[UNARY](tensor))
    return bool(_found[UNARY](tensor))


def _ask_of_some(tensors: Any) -> bool:
    try:
        if sys._getframe(1).f_code.co_name == "backward":
            return find_overrides(*tensors)
    except Exception:
        return bool(_found[SEVERAL](tensors))
    return bool(_found[SEVERAL](tensors))
