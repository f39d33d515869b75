"""Grafts: what a module does around its own forward, and those that several cures share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Graft:
    """Changes a module's arguments before its forward, and its output after it.

    A plain object, copied and pickled with the module; it may refer to modules and parameters, which are
    registered with `Surgery.register`.
    """

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The arguments that the module gets."""
        return args, kwargs

    def after(self, args: tuple[Any, ...], output: Any) -> Any:
        """The output that the module's callers get."""
        return output

    def leave(self) -> None:
        """Called after every forward, even one that raised."""


class _Before:
    def __init__(self, graft: Graft) -> None:
        self.graft = graft

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return self.graft.before(args, kwargs)


class _After:
    def __init__(self, graft: Graft) -> None:
        self.graft = graft

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        try:
            return output if output is None else self.graft.after(args or tuple(kwargs.values()), output)
        finally:
            self.graft.leave()


def attach(module: nn.Module, graft: Graft) -> Callable[[], None]:
    """Let a graft see a module's calls; returns the function that removes it."""
    handles = [
        module.register_forward_pre_hook(_Before(graft), with_kwargs=True),
        module.register_forward_hook(_After(graft), with_kwargs=True, always_call=True),
    ]

    def detach() -> None:
        for handle in handles:
            handle.remove()

    return detach


def first(output: Any) -> Tensor | None:
    """The tensor that flows on: the output itself, or the first tensor of a tuple, list or dict."""
    if isinstance(output, Tensor):
        return output
    items = (
        output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    )
    return next((found for item in items if (found := first(item)) is not None), None)


def with_first(output: Any, value: Tensor) -> Any:
    """The output with that first tensor replaced."""
    if isinstance(output, Tensor):
        return value
    if isinstance(output, dict):
        key = next(k for k, v in output.items() if first(v) is not None)
        return type(output)({**output, key: with_first(output[key], value)})
    place = next(i for i, item in enumerate(output) if first(item) is not None)
    items = [with_first(item, value) if i == place else item for i, item in enumerate(output)]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)


class Then(Graft):
    """output -> module(output)."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def after(self, args: tuple[Any, ...], output: Any) -> Any:
        found = first(output)
        return output if found is None else with_first(output, self.module(found))


class First(Graft):
    """input -> module(input), for the first float tensor among the arguments."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        place = next((i for i, a in enumerate(args) if _is_float(a)), None)
        if place is not None:
            return (*args[:place], self.module(args[place]), *args[place + 1 :]), kwargs
        key = next((k for k, a in kwargs.items() if _is_float(a)), None)
        return args, kwargs if key is None else {**kwargs, key: self.module(kwargs[key])}


class Scale(Graft):
    """output -> scale * output, with a number or a parameter."""

    def __init__(self, scale: float | Tensor) -> None:
        self.scale = scale

    def after(self, args: tuple[Any, ...], output: Any) -> Any:
        found = first(output)
        return output if found is None else with_first(output, self.scale * found)


class Skip(Graft):
    """output -> branch * output + identity * input, if the shapes agree."""

    def __init__(self, branch: float | Tensor = 1.0, identity: float | Tensor = 1.0) -> None:
        self.branch, self.identity = branch, identity

    def after(self, args: tuple[Any, ...], output: Any) -> Any:
        found, given = first(output), first(args)
        if found is None or given is None or found.shape != given.shape:
            return output
        return with_first(output, self.branch * found + self.identity * given)


class Cast(Graft):
    """Converts float arguments to one dtype on the way in, and the output to another if one is given."""

    def __init__(self, inside: torch.dtype, outside: torch.dtype | None = None) -> None:
        self.inside, self.outside = inside, outside

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return cast(args, self.inside), cast(kwargs, self.inside)

    def after(self, args: tuple[Any, ...], output: Any) -> Any:
        return output if self.outside is None else cast(output, self.outside)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Every float tensor in a nest of tuples, lists and dicts in this dtype."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return type(value)({k: cast(v, dtype) for k, v in value.items()})
    if isinstance(value, (tuple, list)):
        items = [cast(v, dtype) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
