"""Joins of paths: concatenated, or summed.

References: He et al. 2016 (sums); Huang et al. 2017 and Ronneberger et al. 2015 (concatenation).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unvanish.lab.models.blocks._example import IMAGE, Example


class Concat(nn.Module):
    """Inputs concatenated along `dimension`: (B, C1, H, W), (B, C2, H, W) to (B, C1 + C2, H, W)."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dimension)


class Add(nn.Module):
    """The sum of inputs of equal shape."""

    def forward(self, *inputs: Tensor) -> Tensor:
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return total


class Level(nn.Module):
    """One map of several, as a backbone of another library gives them: that at `index` of a list."""

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        self.index = index

    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[self.index]


EXAMPLES = {
    Concat: Example({}, [IMAGE, IMAGE], (4, 12, 8, 8)),
    Add: Example({}, [IMAGE, IMAGE], IMAGE),
}
NO_EXAMPLE = (Level,)  # it reads a list of maps, tested with backbones
