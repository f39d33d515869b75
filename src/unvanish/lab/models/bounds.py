"""How large a network of a YAML may be: measured in a draft without memory, refused before it has any.

Notable:
- The draft counts torch's calls and the values of parameters and outputs, so a row cannot hide a loop of a
  billion turns or a tensor larger than the machine.
- Memory is that of the machine, or of the container or limit that the process runs in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from unvanish.core.memory import measure_memory

ROWS = 10_000  # of a YAML, and repeats of a row
LAYERS = 20_000  # of a network, repeats counted
NUMBER = 10_000_000  # the largest number in a row or among the facts
CALLS = 200_000  # of torch, to draft one network; one of ten thousand different rows makes about 100,000
COPIES = 5  # memory of a check or a training / that of the weights: weights, gradients, moments, a copy
SIDES = 2  # of an output: itself and its gradient
BYTES = 4  # of a weight
SECONDS = 3  # of computing, to build one module and run it without data
GIB = 2**30
RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)


@dataclass
class Size:
    """What a draft has counted so far: values of parameters and buffers, values of outputs for two samples.

    `most`: the largest number of values that the caller has room for, infinite if it does not say.
    """

    weights: int = 0
    outputs: int = 0
    most: float = math.inf

    def add(self, module: nn.Module, copies: int = 1) -> None:
        """Count the parameters and buffers of `copies` such modules."""
        tensors = [*module.parameters(), *module.buffers()]
        self.weights += copies * sum(t.numel() for t in tensors if not is_lazy(t))

    def check(self, module: nn.Module) -> None:
        """ValueError if a module on meta would be too large for memory."""
        if fault := replace(self, weights=sum(t.numel() for t in module.parameters())).fault(True):
            raise ValueError(fault)

    def fault(self, real: bool) -> str:
        """Why a network of this size is not built, or an empty text; `real`: it shall have memory."""
        if self.weights > self.most:
            return f"the network has {self.weights:,} weights by here, more than {self.most:,.0f}"
        if not real:
            return ""
        room = measure_memory()
        need, outputs = BYTES * COPIES * self.weights, BYTES * SIDES * self.outputs
        if need > room:
            return (
                f"the network has {self.weights:,} weights by here, which need about {need / GIB:,.0f} GiB"
                f" with their gradients and moments; there are {room / GIB:.0f} GiB: make it smaller"
            )
        if outputs > room:
            return (
                f"the outputs by here need about {outputs / GIB:,.0f} GiB for two samples, with their"
                f" gradients; there are {room / GIB:.0f} GiB: make the sizes smaller"
            )
        return ""


class Measure(TorchFunctionMode):
    """The mode under which a draft runs: counts calls and outputs; ValueError if there are too many calls.

    Each time that it is entered, one module is built and run, which may take a few seconds at most.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size, self.calls, self.running, self.last, self.begun = size, 0, False, 0, 0.0

    def __enter__(self) -> Self:
        self.begun = time.thread_time()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Count the outputs of one module's forward."""
        before, self.running = self.size.outputs, True
        try:
            yield
        finally:
            self.running, self.last = False, self.size.outputs - before

    def skip(self, module: nn.Module, copies: int) -> None:
        """Count `copies` modules like the last one, which are not run."""
        self.size.add(module, copies)
        self.size.outputs += copies * self.last

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count, then call."""
        self.calls += 1
        if self.calls > CALLS:
            raise ValueError(
                f"more than {CALLS:,} calls of torch are needed to build and run it; make it smaller"
            )
        if time.thread_time() - self.begun > SECONDS:
            raise ValueError(f"it takes more than {SECONDS} s to build and run once; make it smaller")
        out = _run_recurrence(func, args) if func in RECURRENT else func(*args, **(kwargs or {}))
        if self.running and isinstance(out, Tensor):
            self.size.outputs += out.numel()
        return out


def _run_recurrence(func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What a recurrent layer returns, by shapes: without memory torch would go through its steps one by one.

    `args` as torch takes them: input (..., C), state, or (state, cell), weights, ..., both directions, ...
    """
    x, state = args[:2]
    if not (isinstance(x, Tensor) and x.is_meta) or not isinstance(args[2], list | tuple):  # or packed
        return func(*args)
    states = state if isinstance(state, list | tuple) else (state,)
    width = states[0].shape[-1] * (2 if args[7] else 1)
    return (x.new_empty((*x.shape[:-1], width)), *(torch.empty_like(s) for s in states))


def large_numbers(value: Any) -> Iterator[int | float]:
    """The numbers in plain values that no row and no fact may have."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= NUMBER:
            yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from large_numbers(entry)
    elif isinstance(value, dict):
        yield from large_numbers(list(value.values()))


def on_meta(device: torch.device) -> bool:
    """Whether tensors on a device have no memory."""
    return device.type == "meta"
