"""The norm of all gradients at every step, within a share of the step's time.

Notable:
- Everything is read in the gradients' own precision, and again in float64 only if that over- or underflows,
  so no verdict is lost to it.
- If reading every gradient costs more than its share, the large ones are read in turns, a part of them at
  each step. The small ones (biases, norms) are read at every step: a NaN made in a backward flows to all
  that lies below it, so they show it at once.
- What is not read at a step is taken to have moved like what is; if that has moved more than twofold, or is
  not finite, everything is read. So spikes and faults are exact, and the rest is an estimate that is
  refreshed within `parts` steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import torch
from torch import Tensor

from unvanish.probes.live.shards import is_partial

SMALL = 4096  # elements of a tensor that is read at every step
MOST = 64  # parts, at most
TRIAL = 12  # readings of which the cost is known before the number of parts changes
LOW = (torch.float16, torch.bfloat16)
MOVED = 4.0  # times the squares that were read, up or down, that make a reading a full one


@dataclass
class Gauge:
    """The norm of the gradients of some parameters, a part of them at a time."""

    values: Callable[[Tensor], Tensor]  # the numbers of a gradient: of sparse ones, of a local shard
    parameters: Sequence[Tensor]
    whole: bool = False  # whether everything must be read at every step
    weights: Sequence[float] = ()  # of each parameter's norm, if other ranks hold the rest or the same
    parts: int = 1
    exact: bool = True  # whether the last reading was a full one
    cost: float = 0.0  # seconds of a reading, a running mean
    _readings: int = field(default=0, init=False)  # since the number of parts changed
    _turn: int = field(default=0, init=False)  # the next part
    _known: list[float] = field(default_factory=list, init=False)  # estimated squares: small ones, each part

    @torch.no_grad()
    def read(self, full: bool = False) -> Tensor | float | None:
        """The L2 norm: a float on the CPU, a tensor elsewhere; None without any gradient.

        `full`: of everything, at any cost; such a reading does not count as one.
        """
        if full and self.parts > 1:
            return self._refresh()
        started = perf_counter()
        found = self._all() if self.parts == 1 or self.whole else self._some()
        self._readings += 1
        self.cost += (perf_counter() - started - self.cost) / min(self._readings, TRIAL)
        return found

    def fit(self, share: float) -> None:
        """Read in more parts, or fewer, so that a reading takes `share` seconds; after some readings."""
        if self.whole or self._readings < TRIAL or not share > 0:
            return
        parts = self.parts
        if self.cost > share:
            parts = min(MOST, 2 * parts)
        elif self.cost < share / 3:
            parts = max(1, parts // 2)
        if parts != self.parts:
            self.parts, self._readings, self._turn, self._known = parts, 0, 0, []

    def _gradients(self) -> list[Tensor]:
        if not self.weights:
            return [self.values(p.grad) for p in self.parameters if p.grad is not None]
        return [self.values(g) for p in self.parameters if (g := p.grad) is not None and not is_partial(g)]

    def _weigh(self, found: list[Tensor]) -> list[Tensor]:
        """Norms of shards, by how much they count among those of all ranks."""
        if not self.weights:
            return found
        pairs = zip(self.weights, self.parameters, strict=True)
        kept = [w for w, p in pairs if p.grad is not None and not is_partial(p.grad)]
        return [n * w if w != 1.0 else n for n, w in zip(found, kept, strict=True)]

    def _all(self) -> Tensor | float | None:
        self.exact = True
        grads = self._gradients()
        if not grads:
            return None
        norm = combine(self._weigh(norms(grads)))
        if norm.device.type != "cpu":
            return norm.double()
        if not 1e-18 < float(norm) < 1e18:
            norm = combine(self._weigh(norms(grads, torch.float64)))
        return float(norm)

    def _some(self) -> Tensor | float | None:
        """The small gradients and the next part of the large ones; all if these moved far."""
        if len(self._known) != self.parts + 1:
            return self._refresh()
        groups = self._groups((0, 1 + self._turn))
        before = self._known[0] + self._known[1 + self._turn]
        small, part = (_squares(g) for g in groups)
        ratio = (small + part) / before if before > 0 else math.nan
        if not 1 / MOVED < ratio < MOVED:
            return self._refresh()
        self.exact = False
        self._known = [ratio * k for k in self._known]
        self._known[0], self._known[1 + self._turn] = small, part
        self._turn = (self._turn + 1) % self.parts
        return math.sqrt(sum(self._known))

    def _refresh(self) -> Tensor | float | None:
        norm = self._all()
        self._known = []
        if isinstance(norm, float) and math.isfinite(norm):
            self._known = [_squares(g) for g in self._groups(range(self.parts + 1))]
        return norm

    def _groups(self, wanted: Sequence[int]) -> list[list[Tensor]]:
        """Gradients of the small ones (0) and of parts of the large ones (from 1), as flat pieces."""
        groups: list[list[Tensor]] = [[] for _ in range(self.parts + 1)]
        places = {p for p in wanted if p > 0}
        begin = 0
        large = sum(p.numel() for p in self.parameters if p.numel() > SMALL)
        size = max(1, -(-large // self.parts))
        for p in self.parameters:
            if p.numel() <= SMALL:
                if 0 in wanted and p.grad is not None:
                    groups[0].append(self.values(p.grad))
                continue
            first, last = begin // size, (begin + p.numel() - 1) // size
            if p.grad is not None and any(first <= k - 1 <= last for k in places):
                flat = _flat(self.values(p.grad))
                for k in places:
                    low, high = max((k - 1) * size - begin, 0), min(k * size - begin, flat.numel())
                    if low < high:
                        groups[k].append(flat[low:high])
            begin += p.numel()
        return [groups[k] for k in wanted]


def norms(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """The L2 norm of each tensor, in its own precision unless `dtype` is given; low ones in float32."""
    if dtype is None and any(t.dtype in LOW for t in tensors):
        dtype = torch.float32 if all(t.dtype in (*LOW, torch.float32) for t in tensors) else torch.float64
    found: list[Tensor] = torch._foreach_norm(list(tensors), 2, dtype)  # type: ignore[assignment]
    return found


def combine(found: Sequence[Tensor]) -> Tensor:
    """The norm of norms, on the first one's device."""
    device = found[0].device
    whole: Tensor = torch.linalg.vector_norm(
        torch.stack([n if n.device == device else n.to(device) for n in found])
    )
    return whole


def exact_norms(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of each tensor, float64 on the first one's device; read in it if float32 is too narrow."""
    device = tensors[0].device
    if device.type != "cpu" or any(t.device != device for t in tensors):
        return torch.stack([n.to(device) for n in norms(tensors, torch.float64)])
    found = _stack(norms(tensors))
    doubtful = torch.nonzero(~((found > 1e-18) & (found < 1e18))).flatten().tolist()
    if doubtful:
        found[doubtful] = _stack(norms([tensors[i] for i in doubtful], torch.float64))
    return found


def _stack(found: Sequence[Tensor]) -> Tensor:
    one = len({n.dtype for n in found}) == 1
    return torch.stack(list(found)).double() if one else torch.stack([n.double() for n in found])


def _flat(x: Tensor) -> Tensor:
    """All elements in a row; in the order of the memory, without a copy, if that is dense."""
    if x.is_contiguous():
        return x.view(-1)
    order = sorted(range(x.ndim), key=lambda d: -int(x.stride()[d]))
    return x.permute(order).reshape(-1)


def _squares(tensors: Sequence[Tensor]) -> float:
    """The sum of squares; small tensors are joined first, which is quicker than reading each."""
    if not tensors:
        return 0.0
    if len(tensors) > 2 and all(t.numel() <= SMALL for t in tensors) and len({t.dtype for t in tensors}) == 1:
        tensors = [torch.cat([_flat(t) for t in tensors])]
    return float(combine(norms(tensors))) ** 2
