"""Discrete choices with a gradient: the forward is the hard choice, the backward that of a soft one.

Notable:
- A comparison, an index of the largest value and a sample are remembered with what they were made of, through
  views and one-hot codes, until they are used as numbers: cast, multiplied, selected by, or looked up with.
- The soft twin of x > c is x itself where x lies in [0, 1], else sigmoid(x - c); that of an index is x where
  its rows are probabilities, else their softmax; that of a cast to integers is x.

Reference: Bengio, Leonard and Courville 2013; Jang, Gu and Poole 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unvanish.surgery.rewire import Calls

Given = tuple[Any, ...]
Named = dict[str, Any]
CLOSE = 1e-4  # by which rows of probabilities may miss one


def pass_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The values of one and the gradient of the other."""
    return hard + (soft - soft.detach())


def _remember(calls: Calls, result: Any, soft: Tensor) -> Any:
    if isinstance(result, Tensor):
        calls.memory[id(result)] = result, soft  # kept alive, so that its id stays its own
    return result


def _recall(calls: Calls, value: Any) -> Tensor | None:
    """The soft twin of a choice."""
    found = calls.memory.get(id(value))
    return None if found is None or found[0] is not value else found[1]


def _learns(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.requires_grad


def _spread(x: Tensor, dim: int) -> Tensor:
    """Probabilities along an axis, which becomes the last."""
    x = x.movedim(dim, -1)
    sums = x.detach().sum(-1)
    sure = bool((x.detach() >= 0).all()) and bool((sums - 1).abs().max() < CLOSE)
    return x if sure else x.softmax(-1)


def _as_numbers(hard: Tensor, soft: Tensor) -> Tensor:
    return pass_through(hard.to(soft.dtype), soft) if hard.shape == soft.shape else hard


class Compare:
    """Whether x > c (sign 1), or x < c (sign -1)."""

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def __call__(self, calls: Calls, index: int, func: Any, args: Given, kwargs: Named) -> Any:
        result = func(*args, **kwargs)
        x, other = (*args, None)[:2]
        if not _learns(x) and not _learns(other):
            return result
        apart = self.sign * (x - other)
        inside = isinstance(x, Tensor) and bool(((x >= 0) & (x <= 1)).all()) and not _learns(other)
        soft = torch.sigmoid(apart) if not inside else x if self.sign > 0 else 1 - x
        return _remember(calls, result, soft) if soft.shape == result.shape else result


def equal(calls: Calls, index: int, func: Any, args: Given, kwargs: Named) -> Any:
    """Whether numbers are the largest of their row, as in x == x.max(-1, keepdim=True).values."""
    result = func(*args, **kwargs)
    x, other = (*args, None)[:2]
    largest = _learns(x) and isinstance(other, Tensor) and other.shape == (*x.shape[:-1], 1)
    return _remember(calls, result, _spread(x, -1)) if largest else result


def choose(calls: Calls, index: int, func: Any, args: Given, kwargs: Named) -> Any:
    """The index of the largest value along an axis."""
    result = func(*args, **kwargs)
    x, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else None)
    return _remember(calls, result, _spread(x, dim)) if _learns(x) and isinstance(dim, int) else result


def sample(calls: Calls, index: int, func: Any, args: Given, kwargs: Named) -> Any:
    """One draw from each row of probabilities."""
    result = func(*args, **kwargs)
    single = isinstance(result, Tensor) and result.ndim == 2 and result.shape[1] == 1
    return _remember(calls, result, args[0]) if single and _learns(args[0]) else result


def reshape(calls: Calls, index: int, func: Any, args: Given, kwargs: Named) -> Any:
    """A view of indices keeps their order, so it keeps their twin."""
    result, soft = func(*args, **kwargs), _recall(calls, args[0] if args else None)
    if soft is None or not isinstance(result, Tensor):
        return result
    if soft.shape == args[0].shape:
        return _remember(calls, result, func(soft, *args[1:], **kwargs))
    return _remember(calls, result, soft.reshape(*result.shape, soft.shape[-1]))


def encode(calls: Calls, index: int, func: Any, args: Given, kwargs: Named) -> Any:
    """One-hot codes of indices."""
    result, soft = func(*args, **kwargs), _recall(calls, args[0])
    return _remember(calls, result, soft) if soft is not None and soft.shape == result.shape else result


def cast(calls: Calls, index: int, func: Any, args: Given, kwargs: Named) -> Any:
    """A choice becomes numbers, or numbers become integers."""
    result, soft = func(*args, **kwargs), _recall(calls, args[0])
    if not isinstance(result, Tensor):
        return result
    if soft is not None:
        return _as_numbers(result, soft) if result.is_floating_point() else _remember(calls, result, soft)
    lost = _learns(args[0]) and not result.is_floating_point() and result.dtype is not torch.bool
    return _remember(calls, result, args[0]) if lost else result


def use(calls: Calls, index: int, func: Any, args: Given, kwargs: Named) -> Any:
    """Numbers are multiplied by a choice, or chosen between."""
    soft = [_recall(calls, a) for a in args]
    new = [a if s is None else _as_numbers(a, s) for a, s in zip(args, soft, strict=True)]
    if getattr(func, "__name__", "") == "where" and soft and soft[0] is not None and len(new) == 3:
        gate = new[0]
        return pass_through(func(*args, **kwargs), gate * new[1] + (1 - gate) * new[2])
    return func(*new, **kwargs)


def look_up(calls: Calls, index: int, func: Any, args: Given, kwargs: Named) -> Any:
    """Rows of a table by chosen indices."""
    result = func(*args, **kwargs)
    table, soft = args[0], _recall(calls, args[1] if len(args) > 1 else kwargs.get("indices"))
    if soft is None or not isinstance(table, Tensor) or table.ndim != 2 or soft.shape[-1] != len(table):
        return result
    mixed: Tensor = soft @ table.detach()
    return pass_through(result, mixed) if mixed.shape == result.shape else result


def list_handlers() -> dict[str, Callable[..., Any]]:
    """All of them, by the name of the function."""
    found: dict[str, Callable[..., Any]] = {name: Compare(1.0) for name in ("gt", "ge", "greater")}
    found |= {name: Compare(-1.0) for name in ("lt", "le", "less")}
    found |= dict.fromkeys(("view", "reshape", "squeeze", "unsqueeze", "flatten", "T", "t"), reshape)
    found |= dict.fromkeys(("float", "double", "to", "type", "type_as", "int", "long"), cast)
    found |= dict.fromkeys(("mul", "where"), use)
    found |= dict.fromkeys(("embedding", "getitem"), look_up)
    return found | {"argmax": choose, "multinomial": sample, "one_hot": encode, "eq": equal}
