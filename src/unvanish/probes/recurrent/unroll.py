"""A fused recurrent layer run again in float64, step by step or along the states its output tells.

Notable: in chaos a trajectory in float64 leaves the one of the module. With the module's output every state
is known, and all steps of the forward are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probes.measures import finite
from unvanish.probes.recurrent.cells import Cell, cell
from unvanish.probes.recurrent.layout import Layout, layout_of

AT_ONCE = 1 << 18  # numbers of state: below it the Jacobians of all steps are computed at once


@dataclass(frozen=True)
class Replay:
    """One direction of one layer after its forward pass: states (N, size), the first (B, size).

    The Jacobians' factors are several times as large as the states; they are computed a step at a time.
    """

    layer: int
    reverse: bool
    cell: Cell
    layout: Layout
    states: Tensor
    first: Tensor
    tape: Tensor

    @property
    def last(self) -> Tensor:
        """The state that each sequence ends in."""
        found = self.first.clone()
        for b, rows in self.layout.spans(self.reverse):
            found[:b] = self.states[rows]
        return found

    def by_step(self, count: int | None = None) -> list[tuple[int, slice, Callable[[], Tensor]]]:
        """(sequences alive, their rows, the Jacobian's factors) for each of the first `count` steps."""
        steps = self._steps()[:count]
        if steps and self.states.numel() <= AT_ONCE:
            whole = self.jacobians()
            return [(b, now, partial(whole.__getitem__, now)) for b, now, _ in steps]
        return [(b, now, partial(self._factors, b, past, now)) for b, now, past in steps]

    def _steps(self) -> list[tuple[int, slice, slice]]:
        """(sequences alive, their rows, the rows of the step before) of every step."""
        spans = self.layout.spans(self.reverse)
        earlier = [slice(0, 0), *(rows for _, rows in spans[:-1])]
        return [(b, now, past) for (b, now), past in zip(spans, earlier, strict=True)]

    def jacobians(self) -> Tensor:
        """The factors of all steps at once."""
        before = self.layout.earlier(self.states, self.first, self.reverse)
        return self.cell.factors(self.tape, before, self.states)

    def block(self, start: int, stop: int) -> tuple[slice, Tensor]:
        """The rows and the factors of steps of a level layout, counted in order of processing."""
        b, steps = len(self.first), len(self.layout.sizes)
        at, shift = ((steps - stop) * b, b) if self.reverse else (start * b, -b)
        rows = slice(at, at + (stop - start) * b)
        before = (
            self.states[rows.start + shift : rows.stop + shift]
            if start
            else self.layout.earlier(self.states[rows], self.first, self.reverse)
        )
        return rows, self.cell.factors(self.tape[rows], before, self.states[rows])

    def _factors(self, alive: int, past: slice, now: slice) -> Tensor:
        """The factors of one step; sequences that begin at it come from their first state."""
        known = self.states[past][:alive]
        before = torch.cat([known, self.first[len(known) : alive]])
        return self.cell.factors(self.tape[now], before, self.states[now])


def unroll_layers(module: nn.Module, inputs: tuple[Any, ...], result: Any = None) -> Iterator[list[Replay]]:
    """The forward pass, layer by layer; yields the replays of each, by direction."""
    if not isinstance(module, nn.RNNBase):
        raise TypeError(f"replay takes nn.RNN, nn.LSTM or nn.GRU, not {type(module).__name__}")
    x, hx = (*inputs, None)[:2]
    layout = layout_of(module, x)
    directions = (False, True) if module.bidirectional else (False,)
    cells = [cell(module, layer, r, layout.device) for layer in range(module.num_layers) for r in directions]
    starts = layout.states(hx, cells)
    rows = layout.rows(x)
    known = _own_output(module, layout, result, len(directions) * cells[0].out)
    for layer in range(module.num_layers):
        first, top = layer * len(directions), layer == module.num_layers - 1
        taken = known.chunk(len(directions), -1) if known is not None and top else [None] * len(directions)
        runs = [
            _unroll(layer, r, cells[first + r], layout, rows, starts[first + r], taken[r]) for r in directions
        ]
        yield runs
        rows = _join([run.states[:, : run.cell.out] for run in runs])


def _own_output(module: nn.RNNBase, layout: Layout, result: Any, width: int) -> Tensor | None:
    """The module's own output as rows (N, width), if it is what a replay would give, and finite."""
    unlike = module.training and module.dropout > 0 and module.num_layers > 1  # a replay drops nothing
    if result is None or unlike:
        return None
    rows, shape = layout.rows(result), (sum(layout.sizes), width)
    if rows.shape != shape:
        raise ValueError(f"result has {tuple(rows.shape)} (rows, features), expected {shape}")
    return rows if finite(rows) else None


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _unroll(
    layer: int, reverse: bool, cell: Cell, layout: Layout, x: Tensor, start: Tensor, known: Tensor | None
) -> Replay:
    """One forward pass; if h is `known`, (N, out), no step waits for the one before."""
    tape = cell.drive(x)
    states = x.new_empty(len(x), cell.size)
    run = Replay(layer, reverse, cell, layout, states, start, tape)
    if known is not None:
        before = layout.earlier(known, start[:, : cell.out], reverse)
        cell.steps(tape, before, start, states, layout.spans(reverse))
        return run
    state = start if layout.level else start.clone()
    for b, rows in layout.spans(reverse):
        after = states[rows]
        cell.step(tape[rows], state[:b], after)
        if layout.level:
            state = after
        else:
            state[:b] = after
    return run
