"""The stack of torch's function modes, on which one of ours may lie under modes of the program."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._device import DeviceContext


def push_mode(mode: Any) -> None:
    """Lay a mode on top of this thread's stack."""
    torch._C._push_on_torch_function_stack(mode)


def remove_mode(mode: Any) -> bool:
    """Take a mode out of this thread's stack, wherever it lies; whether it was there."""
    above = []
    found = lies_on_stack(mode)
    while found:
        top = torch._C._pop_torch_function_stack()
        if top is mode:
            break
        above.append(top)
    for other in reversed(above):
        torch._C._push_on_torch_function_stack(other)
    return found


def lies_on_stack(mode: Any) -> bool:
    """Whether a mode is on this thread's stack."""
    count = torch._C._len_torch_function_stack()
    return any(torch._C._get_function_stack_at(i) is mode for i in range(count))


def is_overridden() -> bool:
    """Whether a function mode of the program is on this thread's stack; a default device's is none."""
    for i in range(torch._C._len_torch_function_stack()):
        mode: Any = torch._C._get_function_stack_at(i)
        if not isinstance(mode, DeviceContext) and not getattr(type(mode), "SEES_INSIDE", False):
            return True
    return False
