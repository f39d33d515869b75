"""Hearing of the first forward of a network, before anything of it has run.

Notable:
- A global hook of torch's modules hears of every call; each module that lies in one that was heard of is
  passed over. What is hung up meanwhile would miss the present call, as torch has read its hooks already, so
  ours hands it on.
- The compiler would trace a hook of ours into the program: it steps aside where something is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as shared

from unvanish.probes.live.compiled import HookSilence
from unvanish.probes.live.guard import WatchEntry, WatchGuard
from unvanish.probes.live.place import find_call
from unvanish.probes.live.readable import find_obstacle


class ForwardListener:
    """Calls `begins(module)`, known weakly, before the first forward of every network that is trained.

    It gives whether the network is known now; one that is not is heard of again at its next forward.
    """

    def __init__(self, guard: WatchGuard, begins: Callable[..., Any]) -> None:
        self._begins = begins
        self._entry = WatchEntry(guard, self._hear)
        self._passed: set[int] = set()
        self._handles: list[Any] = []

    def listen(self) -> None:
        """Begin."""
        entry = self._entry

        def hear(module: nn.Module, args: Any) -> None:
            if not torch.compiler.is_compiling():
                entry(module, args)

        self._handles = [HookSilence(), shared.register_module_forward_pre_hook(hear)]

    def remove(self) -> None:
        """Stop listening; harmless when repeated."""
        while self._handles:
            self._handles.pop().remove()

    def _hear(self, module: nn.Module, args: Any) -> None:
        if id(module) in self._passed or not (module.training and torch.is_grad_enabled()):
            return
        if find_obstacle() or torch._C._current_graph_task_id() != -1:
            return
        tables = shared._global_forward_pre_hooks, module._forward_pre_hooks
        before = {key for table in tables for key in table}
        known = self._begins(module)
        self._passed.update(id(m) for m in module.modules() if known or m is not module)
        frame = find_call()
        kwargs = {} if frame is None else frame.f_locals.get("kwargs", {})
        for key, hook in [item for table in tables for item in table.items()]:
            if key not in before:
                more = (kwargs,) if key in module._forward_pre_hooks_with_kwargs else ()
                hook(module, args, *more)
