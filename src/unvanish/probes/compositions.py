"""Compositions of `torch.nn.functional` seen through: a function mode sees the operations inside them.

Notable: `nn.functional.normalize` and its like hand a tensor with an override over as a whole. While this is
open they find no override, so they run, and the mode sees each operation that they call. Tensors of a class
of somebody's own (nested ones too) are handed over as before.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional
from torch import Tensor, nn

USUAL = {Tensor, nn.Parameter, type(None)}
DISABLED = torch._C._disabled_torch_function_impl
CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


class Unfolded:
    """Keeps compositions unfolded between `open` and `close`; a context manager. It may be nested."""

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}

    def open(self) -> None:
        """Unfold compositions from here on."""
        functional = vars(torch.nn.functional)
        self._before = {name: functional[name] for name in CHECKS}
        functional.update(dict.fromkeys(CHECKS, _find_own))

    def close(self) -> None:
        """Put back what was there before."""
        vars(torch.nn.functional).update(self._before)

    def __enter__(self) -> Unfolded:
        self.open()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def _find_own(*given: Any) -> bool:
    """Whether a tensor is of somebody's own class: its functions are called as they were."""
    for x in given:
        kind = type(x)
        if kind in USUAL:
            continue
        if kind is tuple:
            if _find_own(*x):
                return True
        elif isinstance(x, Tensor) and kind.__torch_function__ is not DISABLED:
            return torch._C._is_torch_function_enabled()  # if not, its class is calling already
    return False
