"""Which positions of a padded sequence are real: a mask (B, T) of booleans, or the token ids themselves.

Notable: in PyTorch's attention True means "attend"; a query without any key would get NaN, so a sequence of
padding alone, and a query that is padding itself, attend to themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unvanish.lab.tokens import PAD


def valid(mask: Tensor) -> Tensor:
    """True at real positions, (B, T), of a boolean mask or of token ids (B, T), where 0 is padding."""
    if mask.dtype == torch.bool:
        return mask
    if mask.is_floating_point():
        raise TypeError(
            f"a mask of {mask.dtype} is ambiguous; give booleans (True: a real position) or token ids "
            "(0: padding)"
        )
    return mask != PAD


def lengths(mask: Tensor) -> Tensor:
    """The number of steps up to the last real position of each sequence, (B,), at least 1."""
    real = valid(mask)
    steps = torch.arange(1, real.shape[1] + 1, device=real.device)
    return (real * steps).amax(1).clamp(min=1)


def attention_mask(
    queries: int, keys: int, mask: Tensor | None, causal: bool, device: torch.device
) -> Tensor | None:
    """The keys each query may attend to, broadcastable to (B, heads, queries, keys); None if all."""
    may = None if mask is None else valid(mask)[:, None, None, :]  # (B, 1, 1, S)
    if causal:
        past = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
        if may is None:
            return past
        return past & (may | torch.eye(queries, keys, dtype=torch.bool, device=device))
    return may if may is None else may | ~may.any(-1, keepdim=True)
