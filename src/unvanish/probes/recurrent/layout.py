"""How the batches of recurrent layers are laid out: batch first, time first, unbatched or packed.

Notable: all of them become one: N rows in order of the steps, `sizes[t]` of them at step t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from unvanish.probes.recurrent.cells import Cell


@dataclass(frozen=True)
class Layout:
    """How a batch is laid out: `sizes[t]` sequences are alive at step t, the longest first."""

    sizes: tuple[int, ...]
    form: str  # "packed", "unbatched", "batch first" or "time first"
    packed: PackedSequence | None
    device: torch.device

    @property
    def level(self) -> bool:
        """Whether all sequences have one length."""
        return self.sizes[0] == self.sizes[-1]

    def spans(self, reverse: bool) -> list[tuple[int, slice]]:
        """(sequences alive, their rows) for every step, in the order of processing."""
        ends = accumulate(self.sizes)
        spans = [(b, slice(end - b, end)) for b, end in zip(self.sizes, ends, strict=True)]
        return spans[::-1] if reverse else spans

    def earlier(self, rows: Tensor, first: Tensor, reverse: bool) -> Tensor:
        """The row a step before each row, (N, D): another row, or one of `first`, (B, D)."""
        if self.level:
            b = len(first)
            return torch.cat([rows[b:], first] if reverse else [first, rows[:-b]])
        found, past = torch.empty_like(rows), rows[:0]
        for b, now in self.spans(reverse):
            found[now] = torch.cat([past[:b], first[len(past) : b]])
            past = rows[now]
        return found

    def rows(self, x: Any) -> Tensor:
        """A sequence tensor as rows (N, D), float64."""
        data = (x.data if isinstance(x, PackedSequence) else x).detach().to(self.device, torch.float64)
        if self.form == "batch first":
            data = data.transpose(0, 1)
        return data.flatten(0, -2)

    def sequence(self, rows: Tensor) -> Tensor | PackedSequence:
        """The reverse of `rows`: (N, D) in the layout of the module's output."""
        if self.packed is not None:
            return self.packed._replace(data=rows)
        if self.form == "unbatched":
            return rows
        steps = rows.reshape(len(self.sizes), -1, rows.shape[-1])
        return steps.transpose(0, 1) if self.form == "batch first" else steps

    def states(self, state: Any, cells: Sequence[Cell]) -> list[Tensor]:
        """h, or (h, c) with None for zeros, as one (B, size) for each cell, longest sequence first."""
        parts = list(state) if isinstance(state, (tuple, list)) else [state]
        widths = [(c.out, c.size - c.out)[: 1 + (c.size > c.out)] for c in cells]
        parts = [*parts, None][: len(widths[0])]
        columns = [self._states(part, [w[i] for w in widths]) for i, part in enumerate(parts)]
        return [torch.cat(column, -1) for column in zip(*columns, strict=True)]

    def _states(self, part: Tensor | None, widths: list[int]) -> Sequence[Tensor]:
        shape = (len(widths), self.sizes[0], widths[0])
        if part is None:
            return torch.zeros(shape, dtype=torch.float64, device=self.device).unbind()
        part = part.detach().to(self.device, torch.float64)
        part = part.unsqueeze(1) if self.form == "unbatched" else part
        if part.shape != shape:
            expected = f"{shape} (layers x directions, B, size)"
            raise ValueError(f"a state has shape {tuple(part.shape)}, expected {expected}")
        order = self.packed.sorted_indices if self.packed else None
        return (part if order is None else part.index_select(1, order.to(self.device))).unbind()

    def state(self, states: Sequence[Tensor], out: int) -> Any:
        """The reverse of `states`: h_n, or (h_n, c_n), as the module returns it."""
        stacked = torch.stack(list(states))
        order = self.packed.unsorted_indices if self.packed else None
        if order is not None:
            stacked = stacked.index_select(1, order.to(self.device))
        stacked = stacked.squeeze(1) if self.form == "unbatched" else stacked
        h, c = stacked[..., :out], stacked[..., out:]
        return (h, c) if c.shape[-1] else h


def layout_of(module: nn.RNNBase, x: Any) -> Layout:
    """The layout of an input of a recurrent layer; ValueError unless it has 2 or 3 dimensions."""
    device = next(module.parameters()).device
    device = device if device.type in ("cpu", "cuda") else torch.device("cpu")  # float64 is needed
    if isinstance(x, PackedSequence):
        return Layout(tuple(x.batch_sizes.tolist()), "packed", x, device)
    if x.dim() not in (2, 3):
        raise ValueError(f"a recurrent layer takes an input of 2 or 3 dimensions, not {x.dim()}")
    if x.dim() == 2:
        return Layout((1,) * x.shape[0], "unbatched", None, device)
    batch, steps = (x.shape[0], x.shape[1]) if module.batch_first else (x.shape[1], x.shape[0])
    return Layout((batch,) * steps, "batch first" if module.batch_first else "time first", None, device)
