"""The groups and the step hooks of torch's optimizers, for an optimizer of another library that has none.

Notable: whoever runs that optimizer calls `begin` before its step and `end` after it. A guard that leaves a
step out takes all gradients away, which `begin` reports.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

LIBRARIES = ("torch",)
Hook = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


class OptimizerFace:
    """What `unvanish.watch` asks of an optimizer; `param_groups` has one group, with its learning rate."""

    def __init__(self, parameters: Iterable[Tensor], rate: float) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(parameters), "lr": rate}]
        self._before: OrderedDict[int, Hook] = OrderedDict()
        self._after: OrderedDict[int, Hook] = OrderedDict()

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call a hook before every step."""
        handle = RemovableHandle(self._before)
        self._before[handle.id] = hook
        return handle

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call a hook after every step."""
        handle = RemovableHandle(self._after)
        self._after[handle.id] = hook
        return handle

    def begin(self, rate: float) -> bool:
        """A step at this learning rate is about to be made; whether there are still gradients for it."""
        self.param_groups[0]["lr"] = rate
        for hook in tuple(self._before.values()):
            hook(self, (self,), {})
        return any(p.grad is not None for p in self.param_groups[0]["params"])

    def end(self) -> None:
        """The step was made, or left out."""
        for hook in tuple(self._after.values()):
            hook(self, (self,), {})

    def step(self) -> None:
        """Nothing: the library makes the step."""


def exchange_gradients(parameters: Sequence[Tensor], grads: Sequence[Any]) -> list[Any]:
    """Let parameters hold these gradients, and give back those that they held."""
    before = [p.grad for p in parameters]
    for p, now, wanted in zip(parameters, before, grads, strict=True):
        if wanted is not now:
            p.grad = wanted
    return before
