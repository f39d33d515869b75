"""The process and this thread put back: random generators, modes, precision, global hooks, warnings.

Notable: what was not changed is not written. The lists of warning filters and of global hooks are
everybody's; they are put back only if no other thread runs.
"""

from __future__ import annotations

import gc
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.modules.module as modules
from torch import _C

from unvanish.probes.kept_tensors import Undo, refill_dict

GLOBAL_HOOKS = tuple(
    table for name, table in vars(modules).items() if name.startswith("_global_") and isinstance(table, dict)
)
KINDS = ("cpu", "cuda")  # of devices whose autocast may be on

Switch = tuple[Callable[[], Any], Callable[[Any], Any]]  # reads and writes one setting


def keep_process() -> Iterator[Undo]:
    """What puts back the random generators, the modes of this thread and the settings of the process."""
    yield _random_state()
    yield _stacks()
    yield _settings()
    yield _hooks()
    yield _filters()


def _cuda_in_use() -> bool:
    started: Callable[[], bool] = torch.cuda.is_initialized
    return started()


def _random_state() -> Undo:
    python, numbers, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def undo() -> None:
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)

    return undo


def _stacks() -> Undo:
    """The modes of torch functions and of dispatch, which a forward that was broken off may leave on."""
    functions, dispatched = _C._len_torch_function_stack(), _C._len_torch_dispatch_stack()

    def undo() -> None:
        while _C._len_torch_function_stack() > functions:
            _C._pop_torch_function_stack()
        while _C._len_torch_dispatch_stack() > dispatched:
            _C._pop_torch_dispatch_stack(None)

    return undo


def _set_autocast(values: Any) -> None:
    *kinds, cached = values
    for kind, (on, dtype) in zip(KINDS, kinds, strict=True):
        torch.set_autocast_enabled(kind, on)
        torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(cached)


def _autocast() -> Any:
    found = [(torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in KINDS]
    return [*found, torch.is_autocast_cache_enabled()]


def _set_deterministic(values: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(values[0], warn_only=values[1])


SETTINGS: tuple[Switch, ...] = (
    (torch.is_grad_enabled, _C._set_grad_enabled),
    (_autocast, _set_autocast),
    (torch.get_default_dtype, torch.set_default_dtype),
    (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        _set_deterministic,
    ),
    (torch.get_num_threads, torch.set_num_threads),
    (_C._get_cudnn_enabled, _C._set_cudnn_enabled),
    (_C._get_cudnn_benchmark, _C._set_cudnn_benchmark),
    (_C._get_cudnn_deterministic, _C._set_cudnn_deterministic),
    (_C._get_mkldnn_enabled, _C._set_mkldnn_enabled),
    (_C._get_math_sdp_enabled, _C._set_sdp_use_math),
    (_C._get_flash_sdp_enabled, _C._set_sdp_use_flash),
    (_C._get_mem_efficient_sdp_enabled, _C._set_sdp_use_mem_efficient),
    (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda v: torch.set_anomaly_enabled(*v),
    ),
    (np.geterr, lambda v: np.seterr(**v)),
    (gc.get_threshold, lambda v: gc.set_threshold(*v)),
)


def _settings() -> Undo:
    before = [read() for read, _ in SETTINGS]

    def undo() -> None:
        for (read, write), value in zip(SETTINGS, before, strict=True):
            if read() != value:
                write(value)

    return undo


def _hooks() -> Undo:
    alone, before = threading.active_count() == 1, [dict(table) for table in GLOBAL_HOOKS]

    def undo() -> None:
        if not alone or threading.active_count() > 1:  # another thread may be hanging up its own
            return
        for table, kept in zip(GLOBAL_HOOKS, before, strict=True):
            if table or kept:
                refill_dict(table, kept)

    return undo


def _filters() -> Undo:
    """The filters of warnings and what shows them, of which a block that was broken off may leave a copy."""
    alone, table, shows = threading.active_count() == 1, warnings.filters, warnings.showwarning
    before = list(table)

    def undo() -> None:
        if not alone or threading.active_count() > 1:
            return
        if warnings.filters is not table or list(table) != before:
            warnings.filters = table
            warnings.filters[:] = before  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]
        warnings.showwarning = shows

    return undo
