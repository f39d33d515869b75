"""What a node of the autograd graph keeps for its backward, if it still has it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

GONE = ("already been freed", "modified by an inplace operation")  # torch's words


def is_gone(error: RuntimeError) -> bool:
    """Whether torch says that a node has lost what it kept; anything else is a failure."""
    return any(words in str(error) for words in GONE)


def find_saved(node: Any, name: str) -> Tensor | None:
    """A tensor, or a number as one, that a node keeps under a name.

    None if it keeps none, if its backward has run, or if what it kept was overwritten.
    """
    try:
        value = getattr(node, name, None)
    except RuntimeError as error:
        if not is_gone(error):
            raise
        return None
    return torch.as_tensor(value) if isinstance(value, (Tensor, int, float)) else None
