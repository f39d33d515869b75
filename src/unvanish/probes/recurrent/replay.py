"""Fused recurrent layers, replayed step by step: the gradient that reaches the state of every time step.

Notable:
- `nn.RNN`, `nn.LSTM` and `nn.GRU` are one node of the autograd graph; their weights, their input and the
  cotangent of their output are all it takes to run them again, in float64, equal to the fused result. Their
  output says where they went: with it all steps of the forward are one.
- Going back, every sequence's gradient is a vector times a power of two, renormalised before it leaves the
  comfortable range: nothing underflows or overflows, at no loss of accuracy. A short run that never
  leaves it, which is seen at its end, needs no powers.
- The true gradient and the random probes of `carry_log` travel as one batch.
- All layouts become one, see `layout`.
- Dropout between layers counts as off. Nothing here touches the module, the global RNG or the autograd graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unvanish.probes.measures import finite
from unvanish.probes.recurrent.cells import Cell, cell
from unvanish.probes.recurrent.layout import Layout, laid_out

ABSENT = -(2.0**50)  # the exponent of an exact zero: below every other, and still exact to add to
POINTS = 512  # a longer profile is thinned to this many steps for its slope
LN2 = float(np.log(2.0))
COMFORT = 2.0**200  # a gradient this large, or this small, is renormalised before it goes on
AT_ONCE = 1 << 18  # numbers of state: the Jacobians of a shorter or narrower layer are made in one go
BLOCK = 1 << 16  # numbers of tape: steps that go back together, in memory that the next ones take over


@dataclass(frozen=True)
class Profile:
    """The gradient through time of one direction of one layer; index 0 is the step processed first.

    `state_log`, (T,): ln ||dL/ds_t||, all that reaches the state, by the output and by the recurrence; s = h,
    or (h, c) for an LSTM, h and c being independent coordinates. -inf when exactly zero.
    `carry_log`, (T,): ln of the gain of a random cotangent on the last state, carried back to step t by the
    recurrence alone; root mean square over probes and sequences; `carry_log[-1] == 0`. Sequences of unequal
    length are aligned at their ends.
    """

    layer: int
    reverse: bool
    steps: int
    state_log: NDArray[np.float64]
    carry_log: NDArray[np.float64]

    @property
    def step_gain(self) -> NDArray[np.float64]:
        """The carried gradient's gain from step t+1 back to step t, (T-1,); NaN once nothing is left."""
        with np.errstate(invalid="ignore"):
            return np.exp(self.carry_log[:-1] - self.carry_log[1:])


class Scaled(NamedTuple):
    """Rows `value * 2**exponent`: value (..., D) and exponent (...), both float64."""

    value: Tensor
    exponent: Tensor


@dataclass(frozen=True)
class Run:
    """One direction of one layer after its forward pass: states (N, size), the first (B, size).

    The Jacobians' factors are several times as large as the states; they are made a step at a time.
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

    def turns(self, count: int | None = None) -> list[tuple[int, slice, Callable[[], Tensor]]]:
        """(sequences alive, their rows, the Jacobian's factors) of the first `count` steps processed."""
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
        """Sequences that were not there a step ago come from their first state."""
        known = self.states[past][:alive]
        before = torch.cat([known, self.first[len(known) : alive]])
        return self.cell.factors(self.tape[now], before, self.states[now])


@torch.no_grad()
def replay(
    module: nn.Module,
    inputs: tuple[Any, ...],
    grad_output: Any,
    grad_state: Any,
    *,
    result: Any = None,
    probes: int = 4,
    seed: int = 0,
) -> list[Profile]:
    """The gradient at every time step of a fused recurrent layer, one profile a layer and direction.

    `inputs` are the module's arguments (x, hx=None) in any layout it takes; `grad_output` is dL/d(output) in
    the output's layout (a PackedSequence or its data), `grad_state` dL/d(h_n), or a pair for an LSTM; None is
    zero. `result` is the output the module gave: with it the last layer is followed along the states that the
    module went through, which in chaos are not those of float64, and its forward takes no loop. Profiles come
    by layer, the forward direction first. TypeError for another module, ValueError for shapes that do not fit
    and for `probes` < 1.
    """
    found, _ = sweep(
        module, inputs, grad_output, grad_state, result=result, probes=probes, seed=seed, inwards=False
    )
    return found


@torch.no_grad()
def sweep(
    module: nn.Module,
    inputs: tuple[Any, ...],
    grad_output: Any,
    grad_state: Any,
    *,
    result: Any = None,
    probes: int = 4,
    seed: int = 0,
    inwards: bool = True,
) -> tuple[list[Profile], Scaled]:
    """`replay`, and the gradient of the input as rows (N, D) that cannot underflow.

    `inwards=False` spares that of the first layer's input, and gives zeros for it.
    """
    if probes < 1:
        raise ValueError(f"probes is {probes}, expected at least 1")
    layout, stack = _forward(module, inputs, result)
    cells = [run.cell for runs in stack for run in runs]
    ends = layout.states(grad_state, cells)
    shape = (sum(layout.sizes), len(stack[0]) * cells[0].out)
    rows = ends[0].new_zeros(shape) if grad_output is None else layout.rows(grad_output)
    if rows.shape != shape:
        raise ValueError(f"grad_output has {tuple(rows.shape)} (rows, features), expected {shape}")
    generator = _generator(seed)
    profiles: list[Profile] = []
    above = _bounded(rows)
    while stack:
        runs = stack.pop()
        parts = above.value.chunk(len(runs), -1)
        last = ends[-len(runs) :]
        del ends[-len(runs) :]
        done = [
            _backward(
                run,
                Scaled(part, above.exponent),
                end,
                _probes(probes, end, generator),
                inwards or run.layer > 0,
            )
            for run, part, end in zip(runs, parts, last, strict=True)
        ]
        profiles[:0] = [profile for profile, _ in done]
        above = done[0][1] if len(done) == 1 else _add(done[0][1], done[1][1])
    return profiles, above


@torch.no_grad()
def output(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """What `module(*inputs)` returns, computed by the float64 replay (dropout off)."""
    layout, stack = _forward(module, inputs)
    runs = [run for level in stack for run in level]
    out = runs[0].cell.out
    rows = torch.cat([run.states[:, :out] for run in stack[-1]], -1)
    return layout.sequence(rows), layout.state([run.last for run in runs], out)


@torch.no_grad()
def lyapunov(module: nn.Module, inputs: tuple[Any, ...], *, exponents: int = 1, seed: int = 0) -> float:
    """The Lyapunov exponent of layer 0's state map along these inputs, nats a step; negative = it forgets.

    (1/T) sum ln ||J_t q_(t-1)||, q renormalised at each step, mean over the batch; with `exponents` > 1 the
    mean of that many largest ones (Benettin 1980). -inf when J is exactly singular on q, NaN when a state is
    not finite. ValueError for more exponents than the state has coordinates.
    """
    run = next(_passes(module, inputs))[0]
    if not 1 <= exponents <= run.cell.size:
        raise ValueError(f"exponents is {exponents}, expected 1 to {run.cell.size}, the size of the state")
    if not (torch.isfinite(run.states).all() and torch.isfinite(run.tape).all()):
        return float("nan")
    shape = (run.layout.sizes[0], run.cell.size, exponents)
    q = torch.linalg.qr(_normal(shape, _generator(seed))).Q.to(run.states.device)
    total = q.new_zeros(())
    for b, _, factors in run.turns():
        pushed = run.cell.push(factors(), q[:b].movedim(-1, 0)).movedim(0, -1)
        q, r = torch.linalg.qr(pushed)
        total += r.diagonal(dim1=-2, dim2=-1).abs().log().sum()
    return float(total) / (sum(run.layout.sizes) * exponents)


def horizon(carry_log: NDArray[np.float64]) -> tuple[float, float]:
    """(slope, steps): how fast a carried gradient fades and how far it reaches.

    The slope is Theil-Sen's, of `carry_log` against t, nats a step: positive where it shrinks going back,
    negative where it grows. Steps = 3/|slope|, inf for slope 0; where the gradient is exactly zero from some
    step on, no more than the steps it survives (slope inf if that is none). NaN for a single step, or where
    the log is NaN.
    """
    log = np.asarray(carry_log, dtype=np.float64)
    if log.size < 2 or np.isnan(log).any():
        return float("nan"), float("nan")
    t = np.flatnonzero(np.isfinite(log))
    if t.size < 2:
        return float("inf"), 0.0
    reach = float(t.size - 1) if t.size < log.size else float("inf")
    t = t[np.unique(np.linspace(0, t.size - 1, min(t.size, POINTS)).round().astype(int))]
    i, j = np.triu_indices(t.size, 1)
    slope = float(np.median((log[t[j]] - log[t[i]]) / (t[j] - t[i])))
    return slope, min(3 / abs(slope) if slope else float("inf"), reach)


def _forward(
    module: nn.Module, inputs: tuple[Any, ...], result: Any = None
) -> tuple[Layout, list[list[Run]]]:
    stack = list(_passes(module, inputs, result))
    return stack[0][0].layout, stack


def _passes(module: nn.Module, inputs: tuple[Any, ...], result: Any = None) -> Iterator[list[Run]]:
    """The forward pass, layer by layer; each yields one run a direction."""
    if not isinstance(module, nn.RNNBase):
        raise TypeError(f"replay takes nn.RNN, nn.LSTM or nn.GRU, not {type(module).__name__}")
    x, hx = (*inputs, None)[:2]
    layout = laid_out(module, x)
    directions = (False, True) if module.bidirectional else (False,)
    cells = [cell(module, layer, r, layout.device) for layer in range(module.num_layers) for r in directions]
    starts = layout.states(hx, cells)
    rows = layout.rows(x)
    known = _known(module, layout, result, len(directions) * cells[0].out)
    for layer in range(module.num_layers):
        first, top = layer * len(directions), layer == module.num_layers - 1
        taken = known.chunk(len(directions), -1) if known is not None and top else [None] * len(directions)
        runs = [
            _unroll(layer, r, cells[first + r], layout, rows, starts[first + r], taken[r]) for r in directions
        ]
        yield runs
        rows = _joined([run.states[:, : run.cell.out] for run in runs])


def _known(module: nn.RNNBase, layout: Layout, result: Any, width: int) -> Tensor | None:
    """The output (N, width) of the last layer, where the module's own is of use."""
    unlike = module.training and module.dropout > 0 and module.num_layers > 1  # to what is replayed here
    if result is None or unlike:
        return None
    rows, shape = layout.rows(result), (sum(layout.sizes), width)
    if rows.shape != shape:
        raise ValueError(f"result has {tuple(rows.shape)} (rows, features), expected {shape}")
    return rows if finite(rows) else None


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _unroll(
    layer: int, reverse: bool, cell: Cell, layout: Layout, x: Tensor, start: Tensor, known: Tensor | None
) -> Run:
    """One forward pass; where h is `known`, (N, out), no step waits for the one before."""
    tape = cell.drive(x)
    states = x.new_empty(len(x), cell.size)
    run = Run(layer, reverse, cell, layout, states, start, tape)
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


def _backward(
    run: Run, above: Scaled, end: Tensor, probes: Tensor, inwards: bool = True
) -> tuple[Profile, Scaled]:
    """Carry the true gradient (slot 0) and the probes (slots 1 to P) back through one run."""
    value = torch.cat([end[None], probes])  # (1+P, B, size), times 2**exponent, (1+P, B)
    exponent = value.new_zeros(value.shape[:-1])
    plain = _plain(above)  # None: the exponents are needed from the start
    norm, power = (value.new_zeros(len(value), len(run.states)) for _ in range(2))
    below = value.new_zeros(len(run.states), run.cell.w_in.shape[1]) if inwards else None
    left = len(run.layout.sizes)
    if plain is not None and run.layout.level:
        left = _swiftly(run, plain, value, norm, below)
    for b, rows, factors in reversed(run.turns(left)):
        d, e = value[:, :b], exponent[:, :b]
        if plain is not None:
            d[0, :, : run.cell.out] += plain[rows]
        else:
            top = torch.maximum(e[0], above.exponent[rows])
            d[0] *= torch.exp2(e[0] - top)[:, None]
            d[0, :, : run.cell.out] += above.value[rows] * torch.exp2(above.exponent[rows] - top)[:, None]
            e[0] = top
        size = torch.linalg.vector_norm(d, dim=-1)
        if not _comfortable(size):
            plain, (d, e) = None, _scaled(d, e)
            size = torch.linalg.vector_norm(d, dim=-1)
        norm[:, rows], power[:, rows] = size, e
        jacobian = factors()
        if below is not None:
            below[rows] = run.cell.pull_input(jacobian, d[0])
        value[:, :b], exponent[:, :b] = run.cell.pull(jacobian, d), e
    logs = (norm.log() + power * LN2).cpu().numpy()
    none = value.new_zeros(1).expand(len(run.states), run.cell.w_in.shape[1])
    return _profile(run, logs), Scaled(none, power[0]) if below is None else _scaled(below, power[0])


def _swiftly(run: Run, above: Tensor, value: Tensor, norm: Tensor, below: Tensor | None) -> int:
    """The same for blocks of steps in the comfortable range; how many are left, with `value` at the last."""
    cell, b = run.cell, len(run.first)
    steps = len(run.layout.sizes)
    together = max(1, BLOCK // run.tape[:b].numel())
    for stop in range(steps, 0, -together):
        start = max(0, stop - together)
        rows, factors = run.block(start, stop)
        kept = value.new_empty(stop - start + 1, *value.shape)  # [t + 1] is the gradient at step start + t
        kept[-1] = value
        jacobians, entering = (x.view(-1, b, x.shape[-1]) for x in (factors, above[rows]))
        if run.reverse:
            jacobians, entering = jacobians.flip(0), entering.flip(0)
        cell.pull_steps(jacobians, entering, kept, start > 0)
        size = torch.linalg.vector_norm(kept[1:], dim=-1)
        if not _comfortable(size):
            return stop
        mine = kept[1:, 0]
        if run.reverse:
            size, mine = size.flip(0), mine.flip(0)
        norm[:, rows] = size.transpose(0, 1).flatten(1)
        if below is not None:
            below[rows] = cell.pull_input(factors, mine.flatten(0, 1))
        value.copy_(kept[0])
    return 0


def _comfortable(size: Tensor) -> bool:
    """Whether every row's norm is so far from the limits of float64 that a step cannot leave them."""
    low, high = torch.aminmax(size)
    return float(low) > 1 / COMFORT and float(high) < COMFORT


def _bounded(rows: Tensor) -> Scaled:
    """The rows as they are, where all of them stay in the comfortable range, or are zero; else scaled."""
    size = rows.abs().amax(-1)
    none = size == 0
    fits = ((size > 1 / COMFORT) & (size < COMFORT)) | none
    return Scaled(rows, none * ABSENT) if bool(fits.all()) else _scaled(rows)


def _plain(rows: Scaled) -> Tensor | None:
    """The rows without exponents, where all of them stay in the comfortable range, or are zero."""
    none = rows.exponent == ABSENT
    if bool((none | (rows.exponent == 0)).all()):
        return rows.value
    middling = none | (rows.exponent.abs() < math.log2(COMFORT))
    return rows.value * torch.exp2(rows.exponent)[:, None] if bool(middling.all()) else None


def _profile(run: Run, logs: NDArray[np.float64]) -> Profile:
    """Sum the logs of the norms (1+P, N) over the sequences, by step and by distance from the end."""
    sizes = np.array(run.layout.sizes)
    steps = len(sizes)
    if run.layout.level:
        grid = logs.reshape(len(logs), steps, -1)[:, :: -1 if run.reverse else 1]
    else:
        grid = _aligned(run, logs, sizes)
    count = (len(logs) - 1) * sizes[::-1]  # sizes[k] sequences have more than k steps
    with np.errstate(invalid="ignore"):  # a NaN stays one
        state = np.logaddexp.reduce(2 * grid[0], axis=-1) / 2
        carry = (np.logaddexp.reduce(2 * grid[1:], axis=(0, 2)) - np.log(count)) / 2
        return Profile(run.layer, run.reverse, steps, state, carry - carry[-1])


def _aligned(run: Run, logs: NDArray[np.float64], sizes: NDArray[np.intp]) -> NDArray[np.float64]:
    """The logs as (1+P, T, B), in order of processing; the probes' end together. -inf: no such step."""
    steps = len(sizes)
    step = np.repeat(np.arange(steps), sizes)
    row = np.concatenate([np.arange(b) for b in sizes])
    length = (sizes[:, None] > np.arange(sizes[0])).sum(0)
    distance = step if run.reverse else length[row] - 1 - step
    grid = np.full((len(logs), steps, sizes[0]), -np.inf)
    grid[0, steps - 1 - step if run.reverse else step, row] = logs[0]
    grid[1:, steps - 1 - distance, row] = logs[1:]
    return grid


def _probes(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Random unit cotangents for every sequence, (count, B, size)."""
    return nn.functional.normalize(_normal((count, *like.shape), generator), dim=-1).to(like.device)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(seed)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Drawn on the CPU: the same numbers for every device, and for any default device."""
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")


def _scaled(value: Tensor, exponent: Tensor | None = None) -> Scaled:
    """The same rows with their largest element in [1/2, 1)."""
    size = value.abs().amax(-1)
    shift = torch.frexp(size).exponent.clamp(-1000, 1000).to(value.dtype)
    total = shift if exponent is None else exponent + shift
    return Scaled(value * torch.exp2(-shift)[..., None], torch.where(size == 0, ABSENT, total))


def _add(a: Scaled, b: Scaled) -> Scaled:
    top = torch.maximum(a.exponent, b.exponent)
    left, right = (s.value * torch.exp2(s.exponent - top)[..., None] for s in (a, b))
    return _scaled(left + right, top)
