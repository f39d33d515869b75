"""Watches every training of a process that nobody told of: models are found by the optimizers that hold them.

Notable:
- Before the first forward of a network the optimizers that hold its parameters are looked for among all
  objects, and with them the modules that lie in no other one; those are watched from this forward on.
- That search ends with the first optimizer that steps again. What was not found so, as its optimizer was made
  later or its forward is compiled, is found after its optimizer's first step, and watched from the next one.
- Watches hang themselves up before a forward or after a step, when torch goes through no hooks that they
  would change. The hook after steps stays to the end, idle if the search fails: torch goes through it then.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from unvanish.clinic.watch.front import Watch
from unvanish.clinic.watch.opening import watch
from unvanish.clinic.watch.optimizers import holds_some, unwrap_optimizer
from unvanish.probes.live.compiled import has_compiled_parts
from unvanish.probes.live.forwards import ForwardListener
from unvanish.probes.live.guard import Hung, WatchEntry, WatchGuard

MOST = 8  # models
SEARCHES = 8  # among all objects, before a forward


class Lookout:
    """Opens a watch for every model that is trained; a context manager.

    `options`: those of `watch`. `run`: the folder of the first model; that of the next one is its name with
    -2, and so on.
    """

    def __init__(self, run: Path | None = None, **options: Any) -> None:
        self.run, self.options = run, options
        self.watches: list[Watch] = []
        self.guard = WatchGuard("the search for models")
        self._searches = SEARCHES
        self._forwards = ForwardListener(self.guard, self._before_forward)
        self._steps = Hung()  # in torch until the end, as it goes through these hooks when one fails
        self._known: dict[int, weakref.ref[Any]] = {}  # optimizers
        self._watched: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def __enter__(self) -> Lookout:
        self.guard.run(self._listen)
        return self

    def _listen(self) -> None:
        self._steps.hang(register_optimizer_step_post_hook, WatchEntry(self.guard, self._after_step))
        self.guard.hold(self._forwards)
        self._forwards.listen()

    def __exit__(self, *exception: Any) -> None:
        self.guard.run_anyway(self._steps.remove)
        self.guard.run_anyway(self.guard.let_go)
        for each in self.watches:
            each.close()

    def _before_forward(self, module: nn.Module) -> bool:
        """A network that is in training is about to run; whether its optimizers are found."""
        self._searches -= 1
        if self._searches < 0 or has_compiled_parts(module):
            self._forwards.remove()
            return True
        holding = find_optimizers(module)
        for model in {id(m): m for optimizer in holding for m in find_models(optimizer)}.values():
            if model is module or any(m is module for m in model.modules()):
                own = [o for o in holding if holds_some(o, model)]
                self._open(model, own[0] if len(own) == 1 else None)
        return bool(holding)

    def _after_step(self, optimizer: Any, *_: Any) -> None:
        """An optimizer of the process has stepped."""
        ref = self._known.get(id(optimizer))
        if ref is not None and ref() is optimizer:
            self._forwards.remove()  # a round of the loop is over: every network of it has run
            return
        self._known[id(optimizer)] = weakref.ref(optimizer)
        for model in find_models(optimizer):
            self._open(model)

    def _open(self, model: nn.Module, optimizer: Any = None) -> None:
        """Watch a model, if nobody does; of several optimizers each is taken in when it steps."""
        if model in self._watched or len(self.watches) >= MOST:
            return
        self._watched.add(model)
        name = f"{type(model).__name__}-{len(self.watches) + 1}" if self.watches else None
        opened = watch(model, optimizer, run=self._choose_folder(), name=name, **self.options)
        opened.adopt_later()
        self.watches.append(opened)

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


def find_optimizers(model: nn.Module) -> list[Any]:
    """The optimizers that hold parameters of a model, without wrappers."""
    kind = torch.optim.Optimizer
    alive = [o for o in gc.get_objects() if issubclass(type(o), kind) and "param_groups" in vars(o)]
    inner = {id(o): o for o in map(unwrap_optimizer, alive)}
    return [o for o in inner.values() if holds_some(o, model)]


def _find_modules() -> Iterable[nn.Module]:
    """Every module that is alive; a class may lie about what its objects are, so its type is asked."""
    return [o for o in gc.get_objects() if issubclass(type(o), nn.Module) and "_modules" in vars(o)]
