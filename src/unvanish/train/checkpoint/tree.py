"""A tree of plain values and tensors, taken apart into JSON and named tensors, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def split(tree: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """The tree with every tensor replaced by its path and moved into `tensors`; the rest fits into JSON."""
    if isinstance(tree, Tensor):
        tensors[path] = tree
        return {"tensor": path}
    if isinstance(tree, Mapping):
        return {str(k): split(v, tensors, f"{path}.{k}") for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [split(v, tensors, f"{path}.{i}") for i, v in enumerate(tree)]
    return tree


def join(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `split`; tuples have become lists, and keys text."""
    if isinstance(tree, Mapping):
        if set(tree) == {"tensor"}:
            return tensors[tree["tensor"]]
        return {k: join(v, tensors) for k, v in tree.items()}
    if isinstance(tree, list):
        return [join(v, tensors) for v in tree]
    return tree
