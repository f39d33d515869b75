"""The random states of a process, captured as plain data and put back.

Notable: Python, NumPy, torch on the CPU and on every GPU; so dropout goes on bit by bit after a resume.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed(value: int) -> None:
    """Seed every generator of this process."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def states() -> dict[str, Any]:
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
    """Put the states back; GPUs that are no longer there are passed over."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, place, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), place, has_gauss, cached))
    torch.set_rng_state(states["torch"].to(torch.uint8))
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)


def split(tree: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """The tree with every tensor replaced by its path and put into `tensors`; the rest can be JSON."""
    if isinstance(tree, Tensor):
        tensors[path] = tree
        return {"tensor": path}
    if isinstance(tree, Mapping):
        return {str(k): split(v, tensors, f"{path}.{k}") for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [split(v, tensors, f"{path}.{i}") for i, v in enumerate(tree)]
    return tree


def joined(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `split`; tuples have become lists, and keys text."""
    if isinstance(tree, Mapping):
        if set(tree) == {"tensor"}:
            return tensors[tree["tensor"]]
        return {k: joined(v, tensors) for k, v in tree.items()}
    if isinstance(tree, list):
        return [joined(v, tensors) for v in tree]
    return tree
