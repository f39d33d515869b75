"""How much a mean over neighbours leaves of the differences between the rows of a table: nodes of a graph.

Notable: such a mean is a product with a square matrix that is given, or rows that are added up at places that
are given. A matrix that is learned or computed, as attention is, is another matter.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probes.calls import tensors_in
from unvanish.probes.events import OperationCall

PRODUCTS = {"matmul", "bmm", "mm", "spmm", "_sparse_mm"}
ADDED = {"index_add", "scatter_add", "scatter_reduce", "index_reduce"}
AVERAGING = PRODUCTS | ADDED
FEWEST = 3  # rows
STEPS = 32  # nodes from a matrix to what it is made of
MOST = 1 << 22  # elements that are read


def measure_smoothing(call: OperationCall, result: Tensor) -> float | None:
    """Ln of the relative spread of rows after a mean over neighbours, over that before; None for others."""
    plain = result.is_floating_point() and result.layout is torch.strided and not result.is_meta
    if not plain or result.ndim < 2 or result.numel() > MOST:
        return None
    source = _find_added(call) if call.kind in ADDED else _find_averaged(call, result)
    if source is None or source.layout is not torch.strided:
        return None
    added = call.kind in ADDED  # what is added up was weighed before, so directions alone are compared
    before, after = _spread(source, added), _spread(result, added)
    return math.log(after / before) if before > 0 and after > 0 else None


def _find_averaged(call: OperationCall, result: Tensor) -> Tensor | None:
    """The rows that a square matrix without negative numbers and without gradient averages."""
    given = list(tensors_in(call.args, 1))
    if len(given) != 2 or not given[1].requires_grad or not _is_given(given[0]):
        return None
    matrix, rows = given
    n = result.shape[-2]
    if matrix.ndim < 2 or matrix.shape[-2:] != (n, n) or rows.ndim < 2 or n < FEWEST:
        return None
    values = matrix.coalesce().values() if matrix.layout is torch.sparse_coo else matrix
    if values.layout is not torch.strided or values.numel() > MOST or bool((values < 0).any()):
        return None
    return rows


def _is_given(matrix: Tensor) -> bool:
    """Whether no parameter has a part in a tensor: it is an input, a buffer, or made of these."""
    if matrix.grad_fn is None:
        return not isinstance(matrix, nn.Parameter)
    nodes: list[Any] = [matrix.grad_fn]
    for node in nodes:
        if len(nodes) > STEPS or isinstance(getattr(node, "variable", None), nn.Parameter):
            return False
        nodes += [n for n, _ in node.next_functions if n is not None and n not in nodes]
    return True


def _find_added(call: OperationCall) -> Tensor | None:
    """The rows that are added up at given places."""
    given = [t for t in tensors_in(call.given, 1) if t.is_floating_point() and t.requires_grad]
    rows = given[-1] if given else None
    return rows if rows is not None and rows.ndim >= 2 and rows.shape[-2] >= FEWEST else None


def _spread(x: Tensor, directions: bool) -> float:
    """||x - mean over the rows|| / ||x||, perhaps of rows of length one; 0 if there is nothing to divide."""
    x = x.detach().double()
    x = torch.nn.functional.normalize(x, dim=-1) if directions else x
    size = float(x.norm())
    return float((x - x.mean(-2, keepdim=True)).norm()) / size if 0 < size < math.inf else 0.0
