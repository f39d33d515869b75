"""Compiled parts of a model: no hook and no function mode may enter them, or they would be compiled again."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

HOOKED = r"Using `torch\.compile\(module\)` when there are global hooks on modules"


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile` wraps a module, or `module.compile()` was called."""
    return type(module).__name__ == "OptimizedModule" or (
        getattr(module, "_compiled_call_impl", None) is not None
    )


def has_compiled_parts(model: nn.Module) -> bool:
    """Whether a model or one of its modules is compiled."""
    return any(map(is_compiled, model.modules()))


def is_compiler_strict() -> bool:
    """Whether torch's compiler was told to refuse what it would have to compile again."""
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is None:
        return False
    stance = getattr(getattr(dynamo.eval_frame, "_stance", None), "stance", "default")
    return bool(dynamo.config.error_on_recompile) or stance not in ("default", "force_eager")


class HookSilence:
    """While it hangs, torch does not warn that a module compiled meanwhile meets global hooks, ours.

    The filter is for this text alone; the list is changed in place, so that no warning comes twice. `remove`
    ends it.
    """

    def __init__(self) -> None:
        self._entry: Any = ("ignore", re.compile(HOOKED), UserWarning, None, 0)
        present: Any = warnings.filters
        self._filters = present
        self._filters.insert(0, self._entry)

    def remove(self) -> None:
        """The warning is shown again."""
        present: Any = warnings.filters
        for filters in (self._filters, present):
            with contextlib.suppress(ValueError):
                filters.remove(self._entry)


class CompilerListener:
    """Calls `heard` when torch's compiler begins to compile; `remove` ends that."""

    def __init__(self, heard: Callable[..., None]) -> None:
        self._heard = heard
        self._handler: Any = None

    def listen(self) -> None:
        """Begin, if the compiler is loaded; harmless when repeated."""
        dynamo: Any = sys.modules.get("torch._dynamo")
        handler = getattr(dynamo, "callback_handler", None)
        if self._handler is None and handler is not None:
            self._handler = handler  # first, so that nothing can fail in between
            handler.register_start_callback(self._heard)

    def remove(self) -> None:
        """Stop listening."""
        if self._handler is not None:
            with contextlib.suppress(ValueError):
                self._handler.remove_start_callback(self._heard)
            self._handler = None
