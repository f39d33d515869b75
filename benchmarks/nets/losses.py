"""Tasks: what a net is asked to predict, with targets, and a loss of random kind, reduction and scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.nets.draw import Draw

KINDS = ("cross-entropy", "mse", "bce")


@dataclass(frozen=True)
class Task:
    """A loss `scale * kind(before(output), y)`, callable as a user's loss; `classes` is the head's width."""

    kind: str
    classes: int
    reduction: str = "mean"
    scale: float = 1.0
    before: str = ""

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        output = prepare(output, self.before)
        return self.scale * error(self.kind, output, y, self.reduction)

    def targets(self, *leading: int) -> Tensor:
        """Random targets for outputs of shape (*leading, classes)."""
        if self.kind == "cross-entropy":
            return torch.randint(0, self.classes, leading)
        if self.kind == "mse":
            return torch.randn(*leading, self.classes)
        return torch.randint(0, 2, (*leading, self.classes)).float()


def prepare(output: Tensor, before: str) -> Tensor:
    """The output in float32 at least, after the named last step."""
    output = output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
    if before == "softmax":
        return output.softmax(-1)
    if before == "log_softmax":
        return output.log_softmax(-1)
    return torch.sigmoid(output) if before == "sigmoid" else output


def error(kind: str, output: Tensor, y: Tensor, reduction: str) -> Tensor:
    """One of the three losses; cross-entropy takes the classes in the last dimension."""
    if kind == "cross-entropy":
        return F.cross_entropy(output.flatten(0, -2), y.flatten(), reduction=reduction)
    if kind == "mse":
        return F.mse_loss(output, y.to(output.dtype), reduction=reduction)
    return F.binary_cross_entropy_with_logits(output, y.to(output.dtype), reduction=reduction)


def draw_task(draw: Draw, *kinds: str) -> Task:
    """A task with random kind (of those given), classes, reduction and scale in 1e-6..1e4 or 1."""
    kind = draw.choice(kinds or KINDS)
    classes = draw.randint(3, 10) if kind == "cross-entropy" else draw.randint(2, 8)
    scale = 1.0 if draw.chance(0.4) else draw.log_uniform(1e-6, 1e4)
    return Task(kind, classes, draw.pick("mean", "mean", "sum"), scale)
