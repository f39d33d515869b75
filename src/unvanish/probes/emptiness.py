"""What of the data carries nothing: samples and features that are alike, and padding that enters a mean.

Notable: vectors are compared exactly, by their product with random numbers. A position counts as padding if
its vector is that of half of the samples at the same place, so embeddings of positions hide none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from unvanish.core.facts import InputFacts, NodeFacts
from unvanish.probes.events import OperationCall

SAMPLES = 8  # at least
ROWS = 32  # of a table, at least
COLUMNS = (4, 1024)  # of a table
POSITIONS = 8  # at least
LARGE = 1 << 22  # numbers: what is larger is not looked at


@torch.no_grad()
def read_emptiness(x: Tensor) -> InputFacts:
    """Whether all samples of an input are equal; the shares of constant and repeated columns of a table."""
    x = x.detach()
    if x.is_meta or x.is_nested or x.layout is not torch.strided or x.ndim < 1 or len(x) < SAMPLES:
        return {}
    facts: InputFacts = {}
    if torch.equal(x[0], x[-1]) and bool((x == x[:1]).all()):
        return {"alike": True}
    table = x.ndim == 2 and len(x) >= ROWS and COLUMNS[0] <= x.shape[1] <= COLUMNS[1]
    if not table or not x.is_floating_point():
        return facts
    low, high = torch.aminmax(x, dim=0)
    still = low == high
    if bool(still.any()):
        facts["constant_columns"] = float((still & (high != 0)).double().mean())
    dense = (x != 0).sum(0) * 2 > len(x)  # pixels and words are mostly off, and then often together
    tags = _tag(x[:, ~still & dense].double().t())
    if tags.numel():
        facts["repeated_columns"] = (tags.numel() - len({*tags.tolist()})) / x.shape[1]
    return facts


@torch.no_grad()
def measure_padding(call: OperationCall) -> NodeFacts:
    """Of a mean over the positions of (samples, positions, features): the share of those that are padding."""
    x, dims = call.args[0] if call.args else None, _read_dims(call)
    if (
        not isinstance(x, Tensor)
        or x.is_nested
        or x.ndim != 3
        or dims not in (1, 2)
        or not 0 < x.numel() <= LARGE
        or x.is_meta
    ):
        return {}
    x = x.detach() if dims == 1 else x.detach().transpose(1, 2)
    samples, positions = x.shape[:2]
    ends = any(torch.equal(x[0, k], x[-1, k]) for k in (0, -1))  # what fills lies at an end
    if samples < SAMPLES or positions < POSITIONS or not ends:
        return {}
    tags = _tag(x.double())
    usual = tags.mode(0).values
    same = (tags == usual) & ((tags == usual).sum(0) * 2 >= samples)
    filled = same & (x != 0).any(-1)
    return {"padding": float(filled.double().mean())}


def _read_dims(call: OperationCall) -> int | None:
    """The only axis of a mean, of three; None if there are several."""
    dim: Any = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)
    if isinstance(dim, (tuple, list)):
        dim = dim[0] if len(dim) == 1 else None
    return dim % 3 if isinstance(dim, int) else None


def _tag(x: Tensor) -> Tensor:
    """A number for each vector along the last axis; equal vectors have equal ones."""
    return (x * _draw(x.shape[-1]).to(x)).sum(-1)


@lru_cache(maxsize=8)
def _draw(size: int) -> Tensor:
    """Normal numbers, the same for every vector as long."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
