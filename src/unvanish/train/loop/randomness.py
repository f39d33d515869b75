"""The random states of a process, captured as plain data and restored.

Notable: of Python, NumPy, torch on the CPU and on every GPU; so dropout continues bit by bit after a resume.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


def seed(value: int) -> None:
    """Seed every generator of this process."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def capture() -> dict[str, Any]:
    """The states, as lists, numbers and uint8 tensors."""
    version, words, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), np.asarray(keys).tolist(), int(place), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": list(cuda),
    }


def restore(states: Mapping[str, Any]) -> None:
    """Restore captured states; those of GPUs that no longer exist are ignored."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, place, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), place, has_gauss, cached))
    torch.set_rng_state(states["torch"].to(torch.uint8))
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)


@contextlib.contextmanager
def preserve() -> Iterator[None]:
    """Restore the states when the block ends."""
    states = capture()
    try:
        yield
    finally:
        restore(states)
