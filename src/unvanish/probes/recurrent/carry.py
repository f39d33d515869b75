"""The true gradient of a replayed layer and random probes, carried back through its steps as one batch.

Notable: while the gradient is in the comfortable range no powers of two are needed, and it goes back in
blocks of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unvanish.probes.backward import LN2
from unvanish.probes.recurrent.profile import Profile, summarise
from unvanish.probes.recurrent.scaled import Scaled, drop_exponents, is_comfortable, rescale
from unvanish.probes.recurrent.unroll import Replay

BLOCK = 1 << 16  # numbers of tape: steps that go back together; the next block reuses the memory


def carry_back(
    run: Replay, above: Scaled, end: Tensor, probes: Tensor, inwards: bool = True
) -> tuple[Profile, Scaled]:
    """Carry the true gradient (slot 0) and the probes (slots 1 to P) back through one run."""
    value = torch.cat([end[None], probes])  # (1+P, B, size), times 2**exponent, (1+P, B)
    exponent = value.new_zeros(value.shape[:-1])
    plain = drop_exponents(above)  # None: the exponents are needed from the start
    norm, power = (value.new_zeros(len(value), len(run.states)) for _ in range(2))
    below = value.new_zeros(len(run.states), run.cell.w_in.shape[1]) if inwards else None
    left = len(run.layout.sizes)
    if plain is not None and run.layout.level:
        left = _carry_in_blocks(run, plain, value, norm, below)
    for b, rows, factors in reversed(run.by_step(left)):
        d, e = value[:, :b], exponent[:, :b]
        if plain is not None:
            d[0, :, : run.cell.out] += plain[rows]
        else:
            _enter(d[0], e[0], above.value[rows], above.exponent[rows])
        size = torch.linalg.vector_norm(d, dim=-1)
        if not is_comfortable(size):
            plain, (d, e) = None, rescale(d, e)
            size = torch.linalg.vector_norm(d, dim=-1)
        norm[:, rows], power[:, rows] = size, e
        jacobian = factors()
        if below is not None:
            below[rows] = run.cell.pull_input(jacobian, d[0])
        value[:, :b], exponent[:, :b] = run.cell.pull(jacobian, d), e
    logs = (norm.log() + power * LN2).cpu().numpy()
    none = value.new_zeros(1).expand(len(run.states), run.cell.w_in.shape[1])
    return summarise(run, logs), Scaled(none, power[0]) if below is None else rescale(below, power[0])


def _enter(d: Tensor, e: Tensor, value: Tensor, exponent: Tensor) -> None:
    """Add what enters at a step to the gradient that comes from later, in place, at the larger exponent."""
    top = torch.maximum(e, exponent)
    d *= torch.exp2(e - top)[:, None]
    d[:, : value.shape[-1]] += value * torch.exp2(exponent - top)[:, None]
    e.copy_(top)


def _carry_in_blocks(run: Replay, above: Tensor, value: Tensor, norm: Tensor, below: Tensor | None) -> int:
    """The same by blocks of steps while all is in the comfortable range; returns how many steps are left.

    `value` is then the gradient at the last of them.
    """
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
        if not is_comfortable(size):
            return stop
        mine = kept[1:, 0]
        if run.reverse:
            size, mine = size.flip(0), mine.flip(0)
        norm[:, rows] = size.transpose(0, 1).flatten(1)
        if below is not None:
            below[rows] = cell.pull_input(factors, mine.flatten(0, 1))
        value.copy_(kept[0])
    return 0
