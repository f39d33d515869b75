"""What a look can read, and where it must not: inside transforms, traces and dispatch modes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)
_count_modes, _count_functions = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_find_level, _find_trace = torch._C._functorch.maybe_current_level, torch._C._get_tracing_state
_dispatching: dict[type, bool] = {}  # of tensor classes: whether they take every operation over


def find_obstacle() -> str:
    """Why nothing may be measured at this moment, in this thread; empty if it may.

    A dispatch mode would see our operations among the program's: it counts them, or, in selective
    checkpointing, hands them out again in the wrong place.
    """
    functorch = torch._C._functorch
    if functorch.maybe_current_level() is not None:
        return "torch.func transforms run around them"
    if torch._C._len_torch_dispatch_stack():
        return "a dispatch mode is on around them"
    if torch.jit.is_tracing():  # type: ignore[no-untyped-call, attr-defined]
        return "torch.jit traces them"
    return ""


def is_plain_here() -> bool:
    """Whether nothing at all stands between our operations and the tensors, function modes included."""
    return not (
        _count_modes() or _count_functions() or _find_level() is not None or _find_trace() is not None
    )


def is_readable(x: Tensor) -> bool:
    """Whether a tensor's numbers lie in one strided memory and can be read by ordinary operations."""
    if type(x) not in PLAIN and _takes_over(type(x)):
        return False
    return x.layout == torch.strided and not x.is_nested and not x.is_meta and not _is_wrapped(x)


def is_number(value: Any) -> bool:
    """Whether a loss is one number: a plain one, or a tensor of one element that can be read."""
    if type(value) is Tensor and value.ndim == 0:
        return not _is_wrapped(value)
    if isinstance(value, Tensor):
        return value.numel() == 1 and is_readable(value)
    return isinstance(value, int | float) or (
        getattr(value, "shape", None) == () and hasattr(value, "__float__")
    )


def read_number(value: Any) -> Any:
    """A loss that is one number: a float, or a tensor of one element that waits on its device."""
    if isinstance(value, Tensor):
        return value.item() if value.is_cpu else value.detach()
    return float(value)


def _is_wrapped(x: Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def _takes_over(kind: type) -> bool:
    known = _dispatching.get(kind)
    if known is None:
        default = torch._C._disabled_torch_dispatch_impl
        known = _dispatching[kind] = getattr(kind, "__torch_dispatch__", default) is not default
    return known
