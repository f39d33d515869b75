"""Watches every training of a process that nobody told of: models are found by the optimizers that step.

Notable:
- After the first step of an optimizer that nobody knows, the modules that hold its parameters are looked for
  among all objects; those that lie in no other one are watched from the next step on.
- Watches hang themselves up after a step, when torch goes through no hooks that they would change.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from unvanish.clinic.watch.front import Watch
from unvanish.clinic.watch.opening import watch
from unvanish.probes.live.guard import StepHook, WatchEntry, WatchGuard

MOST = 8  # models


class Lookout:
    """Opens a watch for every model that is trained; a context manager.

    `options`: those of `watch`. `run`: the folder of the first model; that of the next one is its name with
    -2, and so on.
    """

    def __init__(self, run: Path | None = None, **options: Any) -> None:
        self.run, self.options = run, options
        self.watches: list[Watch] = []
        self.guard = WatchGuard("the search for models")
        self._known: dict[int, weakref.ref[Any]] = {}  # optimizers
        self._watched: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def __enter__(self) -> Lookout:
        self.guard.hold(StepHook(register_optimizer_step_post_hook(WatchEntry(self.guard, self._after_step))))
        return self

    def __exit__(self, *exception: Any) -> None:
        self.guard.run_anyway(self.guard.let_go)
        for each in self.watches:
            each.close()

    def _after_step(self, optimizer: Any, *_: Any) -> None:
        """An optimizer of the process has stepped."""
        ref = self._known.get(id(optimizer))
        if ref is not None and ref() is optimizer:
            return
        self._known[id(optimizer)] = weakref.ref(optimizer)
        for model in find_models(optimizer):
            if model not in self._watched and len(self.watches) < MOST:
                self._watched.add(model)
                self.watches.append(watch(model, run=self._choose_folder(), **self.options))

    def _choose_folder(self) -> Path | None:
        number = len(self.watches) + 1
        if self.run is None or number == 1:
            return self.run
        return self.run.with_name(f"{self.run.name}-{number}")


def find_models(optimizer: Any) -> list[nn.Module]:
    """The modules that hold parameters of an optimizer and lie in no other such module, the largest first."""
    wanted = {id(p) for group in optimizer.param_groups for p in group["params"]}
    holding = {id(m): m for m in _find_modules() if any(id(p) in wanted for p in m.parameters())}
    inside = {id(c) for m in holding.values() for c in m.modules() if c is not m}
    roots = [m for i, m in holding.items() if i not in inside]
    return sorted(roots, key=lambda m: -sum(p.numel() for p in m.parameters()))


def _find_modules() -> Iterable[nn.Module]:
    """Every module that is alive; a class may lie about what its objects are, so its type is asked."""
    return [o for o in gc.get_objects() if issubclass(type(o), nn.Module) and "_modules" in vars(o)]
