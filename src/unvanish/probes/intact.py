"""`check` leaves no trace: everything a forward may change is put back, bit for bit, also after an exception.

Notable:
- Parameters, buffers and tensors kept as attributes are compared by value and written only if they changed,
  so their version counters stay as they were on every model that does not write to itself.
- A shallow copy is kept of a module's `__dict__` and of the lists, dicts and sets in it: caches, counters,
  modes, hooks.
- Process-wide state: the random generators of Python, NumPy and torch on every device in use. The fast path
  of `nn.TransformerEncoderLayer`, activation checkpointing and compilation are off during the examination.
"""

from __future__ import annotations

import gc
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import is_
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint as checkpointing
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
CONTAINERS = (list, dict, set)
PLAIN = frozenset((bool, int, float, str, type(None)))  # what most attributes are, and hold no tensor
USUAL = PLAIN | {dict, OrderedDict}


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and `torch.compile`, from outside in."""
    while True:
        if isinstance(model, WRAPPERS):
            model = model.module
        elif type(model).__name__ == "OptimizedModule":  # importing torch's compiler to ask would be heavy
            model = dict(model.named_children())["_orig_mod"]
        else:
            return model


@contextmanager
def intact(model: nn.Module, modules: Iterable[nn.Module] | None = None) -> Iterator[None]:
    """Put the model and the process back as they were when the block ends, however it ends.

    `modules`: those of the model, each once, if known.
    """
    tensors: dict[int, Tensor] = {}
    parts = model.modules() if modules is None else modules
    undo = [_random_state(), *[_module_state(module, tensors) for module in parts]]
    with torch.no_grad():
        undo += [_tensor_state(t) for t in tensors.values()]
    try:
        yield
    finally:
        _run_back(undo)


def _run_back(steps: Iterable[Callable[[], None]]) -> None:
    """Take every step, the last one first; the first error is raised after all of them."""
    failed: Exception | None = None
    for step in reversed(list(steps)):
        try:
            step()
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed


@contextmanager
def in_the_open() -> Iterator[None]:
    """Run eagerly, with gradients; without fused fast paths, recomputation and garbage collection."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        _eager(),
        _without_collection(),
        _replace(checkpointing, "_checkpoint_without_reentrant_generator", _no_recomputation),
        _replace(checkpointing.CheckpointFunction, "apply", _run_now),
    ):
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _eager() -> AbstractContextManager[Any]:
    """Nothing runs compiled; nothing to do if torch's compiler, which is heavy, was never loaded."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def _without_collection() -> Iterator[None]:
    """The collector is off: nearly all that an examination makes lives until its end."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _no_recomputation(*args: Any, **options: Any) -> Iterator[None]:
    yield


def _run_now(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
    return function(*args)


@contextmanager
def _replace(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _tensor_state(tensor: Tensor) -> Callable[[], None]:
    if is_lazy(tensor):
        return lambda: None
    kept, flag = tensor.clone(), tensor.requires_grad

    def restore() -> None:
        if not _same(tensor, kept):
            with torch.no_grad():
                if tensor.shape != kept.shape:
                    tensor.data = kept
                else:
                    tensor.detach().copy_(kept)
        if tensor.is_leaf and tensor.requires_grad != flag:
            tensor.requires_grad_(flag)

    return restore


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if torch.equal(a, b):
        return True
    a = a.detach()
    both = (a != a) & (b != b) | (a == b) if a.is_floating_point() or a.is_complex() else None
    return both is not None and bool(both.all())


def _module_state(module: nn.Module, tensors: dict[int, Tensor]) -> Callable[[], None]:
    """What puts a module's own attributes back; its tensors are added to `tensors`, by id."""
    originals = dict(vars(module))
    empty: list[Any] = []  # most are the tables of hooks
    full: list[tuple[Any, Any]] = []
    for value in originals.values():
        kind = type(value)
        if kind in PLAIN:
            continue
        if kind in USUAL or isinstance(value, CONTAINERS):
            if value:
                full.append((value, value.copy()))
            else:
                empty.append(value)
        elif isinstance(value, Tensor):
            tensors[id(value)] = value
    for table in (module._parameters, module._buffers):
        for tensor in table.values() if table else ():
            if tensor is not None:
                tensors[id(tensor)] = tensor

    def restore() -> None:
        now = vars(module)
        if now.keys() != originals.keys():
            for name in now.keys() - originals.keys():
                del now[name]
        now.update(originals)
        if any(empty):
            for value in empty:
                value.clear()
        for original, kept in full:
            _refill(original, kept)

    return restore


def _refill(original: Any, kept: Any) -> None:
    if isinstance(original, list):
        if len(original) != len(kept) or not all(map(is_, original, kept)):
            original[:] = kept
    elif isinstance(original, set):
        if original != kept:
            original.clear()
            original.update(kept)
    elif list(original) != list(kept) or not all(map(is_, original.values(), kept.values())):
        original.clear()
        original.update(kept)


def _cuda_in_use() -> bool:
    started: Callable[[], bool] = torch.cuda.is_initialized
    return started()


def _random_state() -> Callable[[], None]:
    python, numbers, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)

    return restore
