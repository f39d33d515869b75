"""The grafts that several cures share: a normalisation, a scale, a skip, a cast at a module's border."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unvanish.surgery.surgery import Graft


def first(output: Any) -> Tensor | None:
    """The tensor that flows on: the output itself, or the first tensor of a tuple, list or dict."""
    if isinstance(output, Tensor):
        return output
    items = (
        output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    )
    return next((found for item in items if (found := first(item)) is not None), None)


def with_first(output: Any, value: Tensor) -> Any:
    """The output with that tensor replaced."""
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
    """output -> branch * output + identity * input, where the shapes agree."""

    def __init__(self, branch: float | Tensor = 1.0, identity: float | Tensor = 1.0) -> None:
        self.branch, self.identity = branch, identity

    def after(self, args: tuple[Any, ...], output: Any) -> Any:
        found, given = first(output), first(args)
        if found is None or given is None or found.shape != given.shape:
            return output
        return with_first(output, self.branch * found + self.identity * given)


class Cast(Graft):
    """Float arguments in one dtype on the way in; the output in another, where one is named."""

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
