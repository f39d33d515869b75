"""Rewires functional calls by a torch function mode that is on only while one module's forward runs.

Notable: this is how a cure reaches `torch.sigmoid(x)`, `x + f(x)` or `F.scaled_dot_product_attention` in a
user's own forward. A handler sees a call before torch does; it does not see its own calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from unvanish.probes import operations
from unvanish.probes.compositions import Unfolded
from unvanish.surgery.grafts import Graft

Handler = Callable[["Calls", Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def plain(func: Any) -> str:
    """A torch function's name as the recorder knows it: `relu_`, `Tensor.relu`, `F.relu` are `relu`."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return str(getattr(getattr(func, "__self__", None), "__name__", ""))
    return operations.plain_name(name)


class Calls(TorchFunctionMode):
    """The mode of one forward; `count` counts the calls of each name, `memory` belongs to the handlers.

    `own`: only what the forward itself calls, not the modules it runs.
    """

    SEES_INSIDE = True  # compositions of torch.nn.functional are unfolded for it

    def __init__(self, handlers: dict[str, Any], own: bool = False) -> None:
        super().__init__()
        self.handlers, self.own = handlers, own
        self.inside = 0  # modules that run within the forward
        self.hooks: list[Any] = []
        self.compositions = Unfolded()
        self.count: Counter[str] = Counter()
        self.memory: dict[Any, Any] = {}

    def __enter__(self) -> Any:
        """Start; compositions of `torch.nn.functional` are unfolded, so that the calls inside them count."""
        self.compositions.open()
        if self.own:
            self.hooks = [
                register_module_forward_pre_hook(lambda *_: self._nest(1)),
                register_module_forward_hook(lambda *_: self._nest(-1), always_call=True),
            ]
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self.compositions.close()
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def _nest(self, step: int) -> None:
        self.inside += step

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = plain(func)
        handler = self.handlers.get(name) or self.handlers.get("*")
        if handler is None or self.inside > 0:
            return func(*args, **(kwargs or {}))
        index = self.count[name]
        self.count[name] += 1
        return handler(self, index, func, args, kwargs or {})


class Rewire(Graft):
    """Runs a module's forward under `Calls`; `handlers` by name of the function, "*" sees all others.

    A handler is called as (calls, index, func, args, kwargs), index counting the calls of its name, and
    returns the result for the caller; `own`: only what the forward itself calls. Handlers are objects that
    can be copied and pickled.
    """

    def __init__(self, handlers: dict[str, Any], own: bool = False) -> None:
        self.handlers, self.own = handlers, own
        self.running: list[Calls] = []

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        calls = Calls(self.handlers, self.own)
        calls.__enter__()
        self.running.append(calls)
        return args, kwargs

    def leave(self) -> None:
        if self.running:
            self.running.pop().__exit__(None, None, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "running": []}

    def __deepcopy__(self, memo: dict[int, Any]) -> Rewire:
        import copy

        new = Rewire(copy.deepcopy(self.handlers, memo), self.own)
        memo[id(self)] = new
        return new
