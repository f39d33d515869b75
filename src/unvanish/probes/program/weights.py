"""What the theory needs of parameters: their squares and means, read once.

Notable: a parameter on the meta device is taken at PyTorch's own initialisation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.probes import operations
from unvanish.probes.measures import is_quick, means, see
from unvanish.probes.named import NamedParameters


class Weights:
    """The parameters a forward ran with; `real`: by their ids, those of the model, which have numbers."""

    def __init__(self, named: NamedParameters, real: Mapping[int, Tensor], model: nn.Module) -> None:
        self.named, self.real, self.model = named, real, model

    @cached_property
    def buffers(self) -> dict[str, Tensor]:
        """The model's buffers by name."""
        return dict(self.model.named_buffers())

    def known(self, tensor: Any) -> Tensor | None:
        """The real parameter behind a tensor, also behind a view of it."""
        found = self.real.get(id(tensor))
        if found is None and isinstance(tensor, Tensor) and (base := tensor._base) is not None:
            found = self.real.get(id(base))
        return found

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter or a view of one."""
        if id(tensor) in self.real:
            return True
        if type(tensor) is Tensor and tensor._base is None:  # a plain result
            return False
        return self.known(tensor) is not None or isinstance(tensor, nn.Parameter)

    def power(self, tensor: Tensor) -> float:
        """Mean square of a parameter; 1 if its numbers are not known."""
        known = self.known(tensor)
        if known is None or known.is_meta:
            return 1.0
        norm = self.named.norm(tensor)
        if norm is None:
            norm = float(torch.linalg.vector_norm(known.detach(), dtype=torch.float64))
        return norm**2 / max(1, known.numel())

    def moments(self, tensor: Tensor) -> tuple[float, float]:
        """Mean square and mean of a parameter; 1 and 0 if its numbers are not known."""
        known, norm = self.known(tensor), self.named.norm(tensor)
        if known is None or known.is_meta:
            return 1.0, 0.0
        if norm == 0:
            return 0.0, 0.0
        mean = self._means.get(id(known)) if norm is not None else None
        if norm is None or mean is None:
            return self.power(tensor), float(known.detach().mean(dtype=torch.float64))
        return norm**2 / known.numel(), mean

    @cached_property
    def _means(self) -> dict[int, float]:
        """The means of the vectors among the parameters, by id: all biases at once."""
        some = [p for p in self.real.values() if p.ndim == 1 and p.numel() and p.device.type == "cpu"]
        return dict(zip(map(id, some), means(some), strict=True))

    def bias_moments(self, bias: Tensor, weight: Tensor) -> tuple[float, float]:
        """Mean square and mean of a layer's bias; 0 and 0 if the forward makes it."""
        known = self.known(bias)
        if known is None:
            return 0.0, 0.0
        if known.is_meta:
            return 1 / (3 * max(1, math.prod(weight.shape[1:]))), 0.0
        return self.moments(bias)

    def taps(self, kind: str, weight: Tensor, groups: int = 1) -> Any:
        """The squared weights by position of the kernel, summed over both channels, over the outputs.

        A weight that the forward makes on the meta device, say by weight standardisation, has unit gain.
        """
        outputs = operations.count_outputs(kind, weight.shape, groups)
        kernel = tuple(weight.shape[2:]) if "conv" in kind else ()
        known = self.known(weight)
        if known is None and weight.is_meta:
            return np.full(kernel, 1 / math.prod(kernel))
        if known is None:
            known = weight
        if known.is_meta:
            return np.full(kernel, _initial_gain(kind, weight) / math.prod(kernel))
        whole = None if kernel else self.named.norm(weight)
        if whole is not None:
            return np.asarray(whole**2 / outputs)
        x = known.detach()
        share = weight.numel() / x.numel()  # a view holds a part of the parameter
        if kernel and is_quick(x):
            rows = see(x.flatten(2)).astype(np.float64)
            return (np.einsum("oik,oik->k", rows, rows) * (share / outputs)).reshape(kernel)
        flat, dims = (x.flatten(2), (0, 1)) if kernel else (x.flatten(), None)
        squares = torch.linalg.vector_norm(flat, dim=dims, dtype=torch.float64) ** 2
        return (squares * share / outputs).cpu().numpy().reshape(kernel)


def _initial_gain(kind: str, weight: Tensor) -> float:
    """The squared gain of a layer as PyTorch draws it: uniform, of variance 1 / (3 fan-in)."""
    fan_in = math.prod(weight.shape[1:])  # as PyTorch counts it, also for a transposed convolution
    return 1 / 3 * (weight.shape[0] / max(1, fan_in) if kind in operations.TRANSPOSED else 1.0)
