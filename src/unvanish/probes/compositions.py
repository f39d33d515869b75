"""Compositions of `torch.nn.functional` seen through: a function mode sees the operations inside them.

Notable:
- `nn.functional.normalize` and its like hand a tensor with an override over as a whole. While this is open
  they find no override, so they run, and the mode sees each operation that they call.
- The program's own overrides, of tensor classes and of function modes, are found as ever: they get what they
  would get without us.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional
from torch import Tensor

from unvanish.probes.modes import is_overridden

CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_ordinary: dict[type, bool] = {Tensor: True, torch.nn.Parameter: True, type(None): True}
# of all threads; each step is one operation, as a lock could be left locked by Ctrl-C
_open: list[Unfolded] = []
_found: dict[str, Any] = {}  # what stood there before; the last one to close puts it back


class Unfolded:
    """Keeps compositions unfolded between `open` and `close`; a context manager. It may be nested."""

    def open(self) -> None:
        """Unfold compositions from here on."""
        functional = vars(torch.nn.functional)
        own = (_find_override, find_overrides)
        _found.update({name: functional[name] for name in CHECKS if functional[name] not in own})
        _open.append(self)
        functional.update(
            has_torch_function=_find_override,
            has_torch_function_unary=find_overrides,
            has_torch_function_variadic=find_overrides,
        )

    def close(self) -> None:
        """Put back what was there before; harmless when repeated."""
        if all(other is self for other in _open):
            vars(torch.nn.functional).update(_found)
        if self in _open:
            _open.remove(self)

    def __enter__(self) -> Unfolded:
        self.open()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def _find_override(tensors: Any) -> bool:
    return find_overrides(*tensors)


def find_overrides(*tensors: Any) -> bool:
    """Whether the program takes an operation on these over; torch's own answer if ours fails."""
    try:
        return _are_taken_over(tensors)
    except Exception:
        return bool(torch._C._has_torch_function_variadic(*tensors))


def _are_taken_over(tensors: Any) -> bool:
    """By their classes, unless one of these is calling already, or by a function mode of the program."""
    owned = not all([_ordinary.get(type(t)) or _is_ordinary(t) for t in tensors])
    return (owned and torch._C._is_torch_function_enabled()) or is_overridden()


def _is_ordinary(given: Any) -> bool:
    kind = type(given)
    if kind is tuple:
        return all(map(_is_ordinary, given))
    known = _ordinary.get(kind)
    if known is None:
        own = getattr(kind, "__torch_function__", None)
        disabled = torch._C._disabled_torch_function_impl
        usual: Any = Tensor.__torch_function__
        known = own is None or own is disabled or getattr(own, "__func__", None) is usual.__func__
        _ordinary[kind] = known
    return known
