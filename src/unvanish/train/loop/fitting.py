"""The largest batch that fits into memory, measured by what a forward pass keeps for its backward pass.

Notable:
- Bytes are counted for two sizes, so what does not depend on the batch drops out. Buffers and the random
  state are afterwards as before.
- Few times the usual batch are enough: beyond, a step gets longer and learns no more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.lab.data.pictures import free_memory
from unvanish.train.loop import randomness
from unvanish.train.loop.step import call

SHARE, WORK = 0.6, 2.0  # of the free memory; what gradients and kernels add to what is kept, as a factor
FEW, MORE = 2, 4  # samples that are measured; batch statistics of one do not exist
TIMES = 8  # the usual batch, at most
STATES = 4  # copies of the weights: themselves, gradients, two moments


def fit_batch(network: nn.Module, x: Any, device: torch.device, usual: int, samples: int) -> tuple[int, str]:
    """The largest power of two whose step fits into memory, and that in words; `x`: inputs of a batch."""
    inputs = x if isinstance(x, (tuple, list)) else (x,)
    room, kept = SHARE * find_room(device), 0.0
    if len(inputs[0]) >= MORE:
        few, more = (measure_kept(network, [part[:n] for part in inputs]) for n in (FEW, MORE))
        kept = WORK * (more - few) / (MORE - FEW)
    weights = STATES * sum(p.numel() * p.element_size() for p in network.parameters())
    fits = (room - weights) / kept if kept > 0 else float(TIMES * usual)
    most = int(max(1.0, min(fits, TIMES * usual, max(2, samples))))
    batch = 2 ** (most.bit_length() - 1)
    needs = (weights + batch * kept) / 1e9
    return batch, f"batch=-1: {batch} samples a step take about {needs:.2g} of {room / SHARE / 1e9:.3g} GB"


def find_room(device: torch.device) -> float:
    """Bytes of free memory of a device."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return min(free_memory(), 1e12)


def measure_kept(network: nn.Module, inputs: list[Tensor]) -> float:
    """Bytes that a forward pass in training mode keeps for the backward pass."""
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # or its place may be used again
        return tensor

    kept: list[Tensor] = []
    with leave_undisturbed(network), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        call(network.train(), inputs if len(inputs) > 1 else inputs[0])
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    return float(sum(size for place, size in held.items() if place not in own))


@contextlib.contextmanager
def leave_undisturbed(network: nn.Module) -> Iterator[None]:
    """Put buffers, mode and the random state back at the block's end."""
    buffers, training = [(b, b.detach().clone()) for b in network.buffers()], network.training
    with randomness.preserve():
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            network.train(training)
