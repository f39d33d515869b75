"""How fast a recurrence forgets: the slope of a carried gradient, and Lyapunov exponents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unvanish.probes.recurrent.draws import draw_normal, new_generator
from unvanish.probes.recurrent.unroll import unroll_layers

POINTS = 512  # a longer profile is thinned to this many steps for its slope


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


def horizon(carry_log: NDArray[np.float64]) -> tuple[float, float]:
    """(slope, steps): how fast a carried gradient fades and how far it reaches.

    The slope is Theil-Sen's, of `carry_log` against t, nats a step: positive if it shrinks going back,
    negative if it grows. Steps = 3/|slope|, inf for slope 0; if the gradient is exactly zero from some
    step on, no more than the steps it survives (slope inf if that is none). NaN for a single step, or if
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
