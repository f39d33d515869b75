"""Calls that run differently while they are watched: dropout drops nothing, a kind has its true name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unvanish.probes import operations, signatures

ALTERED = operations.DROPOUTS | operations.FUSED | {"scaled_dot_product_attention", "hardtanh"}


def undrop(name: str, x: Tensor) -> Any:
    """What dropout returns when nothing is dropped."""
    return (x, torch.ones_like(x, dtype=torch.bool)) if name == "native_dropout" else x


def alter(kind: str, args: Any, kwargs: Any) -> tuple[str, Any, Any]:
    """The call with dropout probabilities of attention and recurrent layers set to 0, and its true kind."""
    if kind == "scaled_dot_product_attention":
        return kind, *signatures.replace(kind, args, kwargs, "dropout_p", 0.0)
    if kind in operations.FUSED:  # dropout is their only float, packed or not
        return kind, tuple(0.0 if isinstance(a, float) else a for a in args), kwargs
    clipped = kind == "hardtanh" and signatures.bind(kind, args, kwargs)["min_val"] == 0
    return "relu6" if clipped else kind, args, kwargs
