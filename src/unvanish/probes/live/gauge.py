"""The norm of all gradients at every step, within a share of the step's time.

Notable:
- Everything is read in the gradients' own precision, and again in float64 only if that over- or underflows,
  so no verdict is lost to it.
- Small gradients are copied into few rows, each read by one call, large ones each by its own.
- If reading every gradient costs more than its share, they are read in turns, a part of them at each step.
  A few small ones (biases, norms), the first among them, are read at every step: a NaN made in a backward
  flows to all that lies below it, so they show it at once.
- What is not read at a step is taken to have moved like what is; if that has moved more than twofold, or is
  not finite, everything is read. So spikes and faults are exact, and the rest is an estimate that is
  refreshed within `parts` steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probes.live.shards import is_partial

SMALL = 4096  # elements of a tensor that may be read at every step
ALWAYS = 12  # such tensors, at most
CALL = 2048  # elements whose reading takes as long as what a tensor costs at least
WORTH = 65536  # elements, calls among them, below which a part is not worth dividing
MANY = 12  # small gradients alike but for their first dimension that make a row of their own
LIGHT = 8192  # elements up to which a copy into one row is quicker than a call of its own
MOST = 64  # parts, at most
SAMPLED = 16  # readings from one of which the cost is asked to the next
TRIAL = 12  # readings of which the cost is known before the number of parts changes
LOW = (torch.float16, torch.bfloat16)
MOVED = 4.0  # times the squares that were read, up or down, that make a reading a full one


Piece = tuple[Tensor, int, int]  # a parameter, and which of its elements


class LightRows:
    """Small parameters, by rows into which their gradients are copied: those alike are joined as they are."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        alike: dict[Any, list[Tensor]] = {}
        for p in parameters:
            alike.setdefault((p.ndim > 0, p.shape[1:], p.dtype, p.device), []).append(p)
        self.parameters = parameters
        self.rows = [row for (joins, *_), row in alike.items() if joins and len(row) >= MANY]
        own = {id(p) for row in self.rows for p in row}
        self.rest = [p for p in parameters if id(p) not in own]

    def read(self) -> float | None:
        """The norm of their gradients; 0 without any, None if some are sparse, or of several devices."""
        found = 0.0
        try:
            if self.rest and (grads := [g for p in self.rest if (g := p.grad) is not None]):
                found = _read(torch._C._nn.flatten_dense_tensors(grads))
            for row in self.rows:
                if grads := [g for p in row if (g := p.grad) is not None]:
                    found = math.hypot(found, _read(torch.cat(grads)))
        except (RuntimeError, TypeError, NotImplementedError):
            if _are_ordinary([g for p in self.parameters if (g := p.grad) is not None]):
                raise
            return None
        return found


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
    _known: list[float] = field(default_factory=list, init=False)  # estimated squares: the steady ones, parts
    plain: bool = field(default=True, init=False)  # whether all gradients were ordinary tensors so far
    _light: LightRows = field(default_factory=lambda: LightRows(()), init=False)  # those read in rows
    _heavy: list[Tensor] = field(default_factory=list, init=False)  # the others
    _steady: frozenset[int] = field(default=frozenset(), init=False)  # ids of those read at every step
    _work: int = field(default=0, init=False)  # elements, and calls counted as elements
    _rows: list[LightRows] = field(default_factory=list, init=False)  # light ones: the steady, each part
    _pieces: list[list[Piece]] = field(default_factory=list, init=False)  # the same of the heavy ones

    def __post_init__(self) -> None:
        self._light = LightRows([p for p in self.parameters if p.numel() <= LIGHT])
        self._heavy = [p for p in self.parameters if p.numel() > LIGHT]
        small = [p for p in self.parameters if p.numel() <= SMALL]
        vectors = [p for p in small if p.ndim < 2] or small
        self._steady = frozenset(map(id, vectors[:: -(-len(vectors) // ALWAYS) or 1]))
        self._work = sum(p.numel() + CALL for p in self.parameters)
        self.plain = not self.weights and all(
            type(p) in (Tensor, nn.Parameter) and p.device.type == "cpu" for p in self.parameters
        )

    def read(self, full: bool = False) -> Tensor | float | None:
        """The L2 norm: a float on the CPU, a tensor elsewhere; None without any gradient.

        `full`: of everything, at any cost; such a reading does not count as one.
        """
        if full and self.parts > 1:
            return self._refresh()
        started = perf_counter()
        if self.plain and self.parts == 1:  # no graph is made here, and `no_grad` costs as much as the rest
            quick = self._light.read() if not self._heavy else self._all_plain()
            if quick is not None and 1e-18 < quick < 1e18:
                self.exact = True
                self._readings = count = self._readings + 1
                if count < TRIAL or count % SAMPLED == 0:
                    self.cost += (perf_counter() - started - self.cost) / min(count, TRIAL)
                return quick
        return self._count(started, self._all() if self.parts == 1 or self.whole else self._some())

    def _count(self, started: float, found: Tensor | float | None) -> Tensor | float | None:
        """Note what a reading took; what was found."""
        self._readings += 1
        self.cost += (perf_counter() - started - self.cost) / min(self._readings, TRIAL)
        return found

    def fit(self, share: float) -> None:
        """Read in more parts, or fewer, so that a reading takes `share` seconds; after some readings."""
        if self.whole or self._readings < TRIAL or not share > 0:
            return
        parts = self.parts
        if self.cost > share:
            parts = max(1, min(MOST, 2 * parts, self._work // WORTH))
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

    @torch.no_grad()
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

    def _all_plain(self) -> float | None:
        """The norm of ordinary gradients on the CPU, the light ones in rows; None of others."""
        heavy = [g for p in self._heavy if (g := p.grad) is not None]
        row = self._light.read()
        try:
            large = float(combine(norms(heavy)).detach()) if heavy else 0.0
        except (RuntimeError, TypeError, NotImplementedError):
            row = None
        self.plain = row is not None
        return None if row is None else math.hypot(row, large)

    def _some(self) -> Tensor | float | None:
        """The steady gradients and the next part of the others; all if these moved far."""
        if len(self._known) != self.parts + 1:
            return self._refresh()
        before = self._known[0] + self._known[1 + self._turn]
        try:
            small, part = self._square(0), self._square(1 + self._turn)
        except (RuntimeError, TypeError, NotImplementedError):  # a gradient is sparse now
            if not self.plain:
                raise
            return self._refresh()
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
            self._known = [self._square(k) for k in range(self.parts + 1)]
        return norm

    def _square(self, k: int) -> float:
        """The sum of squares of the steady gradients (0), or of a part of the others (from 1)."""
        if len(self._pieces) != self.parts + 1:
            self._divide()
        found = 0.0
        if self.plain:
            row = self._rows[k].read()
            if row is None:
                raise RuntimeError("a gradient is sparse now")
            found = row**2
        elif light := [self.values(g) for p in self._rows[k].parameters if (g := p.grad) is not None]:
            found = _read_row(light) ** 2
        if self._pieces[k]:
            heavy = [g for piece in self._pieces[k] if (g := self._cut(*piece)) is not None]
            found += float(combine(norms(heavy))) ** 2 if heavy else 0.0
        return found

    def _cut(self, p: Tensor, low: int, high: int) -> Tensor | None:
        """A piece of a parameter's gradient; None if there is none."""
        grad = p.grad
        if grad is None:
            return None
        if not self.plain:
            grad = self.values(grad)
        return _flat(grad.detach())[low:high] if low < grad.numel() else None

    def _divide(self) -> None:
        """Divide the gradients into the steady ones and parts whose readings take equally long."""
        others = [p for p in self.parameters if id(p) not in self._steady]
        size = max(1, -(-sum(p.numel() + CALL for p in others) // self.parts))
        rows = [[p for p in self.parameters if id(p) in self._steady], *([] for _ in range(self.parts))]
        self._pieces = [[] for _ in range(self.parts + 1)]
        begin = 0
        for p in others:
            count = p.numel()
            if count <= LIGHT:
                rows[1 + begin // size].append(p)
            else:
                for k in range(begin // size, (begin + count - 1) // size + 1):
                    low, high = max(k * size - begin, 0), min((k + 1) * size - begin, count)
                    self._pieces[1 + k].append((p, low, high))
            begin += count + CALL
        self._rows = list(map(LightRows, rows))


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


def _are_ordinary(grads: Sequence[Tensor]) -> bool:
    """Whether gradients can be copied into one row: dense, of one type and one device."""
    kinds = {(type(g), g.layout, g.dtype, g.device) for g in grads}
    return len(kinds) < 2 and all(layout is torch.strided for _, layout, _, _ in kinds)


def _read_row(tensors: list[Tensor]) -> float:
    """The norm of small tensors, which are copied into one row."""
    return _read(torch._C._nn.flatten_dense_tensors(tensors))


def _read(row: Tensor) -> float:
    if row.dtype in LOW:
        return float(torch.linalg.vector_norm(row, dtype=torch.float32).item())
    return float(torch.linalg.vector_norm(row).item())
