"""One vector per sequence: its last real step, the mean or the maximum of its real steps, or both.

Notable: the gradient of `last` must pass through every step; `mean` and `max` reach each step directly. With
two directions the backward half ends at the first step, so `last` reads it there. No paper: it is too simple.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unvanish.core.registry import suggest
from unvanish.lab.models.blocks._example import SERIES, Example
from unvanish.lab.models.blocks.masks import lengths, valid

WAYS = ("last", "mean", "max", "mean-max")


class Readout(nn.Module):
    """(B, T, width) to (B, width), or twice the width for "mean-max"; a mask (B, T) marks the real steps."""

    def __init__(self, width_in: int, how: str = "last", bidirectional: bool = False) -> None:
        super().__init__()
        if how not in WAYS:
            raise ValueError(f"no readout {how!r}{suggest(how, WAYS)}; there are {', '.join(WAYS)}")
        self.how, self.backward_half = how, width_in // 2 if bidirectional else 0

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """One vector for each sequence."""
        if self.how == "last":
            return self._last(x, mask)
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else valid(mask)
        first = torch.arange(x.shape[1], device=x.device) == 0  # of padding alone, the first step
        real = (real | (first & ~real.any(1, keepdim=True)))[..., None]
        mean = (x * real).sum(1) / real.sum(1)
        if self.how == "mean":
            return mean
        most = x.masked_fill(~real, -torch.inf).amax(1)
        return most if self.how == "max" else torch.cat((mean, most), 1)

    def _last(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            last = x[:, -1]
        else:
            place = (lengths(mask) - 1)[:, None, None].expand(-1, 1, x.shape[2])
            last = x.gather(1, place)[:, 0]
        if not self.backward_half:
            return last
        return torch.cat((last[:, : -self.backward_half], x[:, 0, -self.backward_half :]), 1)


EXAMPLES = {
    Readout: Example({}, [SERIES], (4, 8)),
}
