"""What the first step of the optimizer that comes with a net does, measured on a copy.

Notable: a healthy net beside an optimizer that ruins it in one step, or that cannot move it, is no healthy
sample, as `check` is given both.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.nets.net import Sample

STILL = 0.3  # of the weights that a gradient reaches: so many may be rounded back to what they were
HALF = (torch.float16, torch.bfloat16)


def find_stumble(example: Sample) -> str:
    """What is wrong with the first step of a sample's optimizer; "" without one, or if nothing is."""
    if example.optimizer is None:
        return ""
    model, optimizer = copy.deepcopy((example.model, example.optimizer))
    loss = read_loss(model, example.batch, example.loss)
    loss.backward()  # type: ignore[no-untyped-call]
    held = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    before = [p.detach().clone() for p in held]
    optimizer.step()
    with torch.no_grad():
        after = read_loss(model, example.batch, example.loss)
        if not bool(torch.isfinite(after)) or not all(bool(torch.isfinite(p).all()) for p in held):
            return "step not finite"
        moved = [(p != was)[p.grad != 0] for p, was in zip(held, before, strict=True) if p.dtype in HALF]
    still = 1 - float(torch.cat(moved).double().mean()) if moved else 0.0
    return "step rounded away" if still > STILL else ""


def read_loss(model: nn.Module, batch: Any, loss: Any) -> Tensor:
    """The loss of a sample, of its model's own making if it has one."""
    if loss is None:
        found: Tensor = model(**batch).loss
        return found
    x, y = batch
    value: Tensor = loss(model(x), y)
    return value
