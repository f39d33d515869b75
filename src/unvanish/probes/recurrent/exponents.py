"""How fast a recurrence forgets: its Lyapunov exponents."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unvanish.probes.recurrent.draws import draw_normal, new_generator
from unvanish.probes.recurrent.unroll import unroll_layers


@torch.no_grad()
def lyapunov(module: nn.Module, inputs: tuple[Any, ...], *, exponents: int = 1, seed: int = 0) -> float:
    """The Lyapunov exponent of layer 0's state map along these inputs, nats a step; negative = it forgets.

    (1/T) sum ln ||J_t q_(t-1)||, q renormalised at each step, mean over the batch; with `exponents` > 1 the
    mean of that many largest ones (Benettin 1980). -inf when J is exactly singular on q, NaN when a state is
    not finite. ValueError for more exponents than the state has coordinates.
    """
    run = next(unroll_layers(module, inputs))[0]
    if not 1 <= exponents <= run.cell.size:
        raise ValueError(f"exponents is {exponents}, expected 1 to {run.cell.size}, the size of the state")
    if not (torch.isfinite(run.states).all() and torch.isfinite(run.tape).all()):
        return float("nan")
    shape = (run.layout.sizes[0], run.cell.size, exponents)
    q = torch.linalg.qr(draw_normal(shape, new_generator(seed))).Q.to(run.states.device)
    total = q.new_zeros(())
    for b, _, factors in run.by_step():
        pushed = run.cell.push(factors(), q[:b].movedim(-1, 0)).movedim(0, -1)
        q, r = torch.linalg.qr(pushed)
        total += r.diagonal(dim1=-2, dim2=-1).abs().log().sum()
    return float(total) / (sum(run.layout.sizes) * exponents)
