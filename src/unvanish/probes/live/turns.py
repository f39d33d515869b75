"""What steps did to a few weights: one tensor in turn at a step, all of them at a look.

Notable:
- A reading copies `ELEMENTS` evenly spaced elements of a weight and of its gradient before the step, and of
  the weight after it. They wait, on their device, until a block of steps is judged.
- From them alone: the share that did not move though a gradient was there, the change over what was there,
  and which way it went.
- The weight of a step's reading is read once more when the next reading begins: what is back where it was
  before the step was put there by something else than the optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unvanish.probes.live.readable import is_readable
from unvanish.probes.measures import see

ELEMENTS = 32  # of a weight
MOST = 64  # weights that are read at a look
FEW = 12  # whose gradients tell the usual size
COLUMNS = ("still", "update_log", "along", "shrink", "agree", "nil", "undone", "again")
STATES = 256  # of a weight, that are remembered
BACK = 0.05  # of what the step changed of an element: one that is nearer to where it was is back there

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Turn:
    """One reading: rows are weights, shape (weights, ELEMENTS); float64 once it was brought over."""

    places: list[int]
    before: list[Tensor]
    gradients: list[Tensor]
    optimizer: int = 0  # the id of the one that steps
    after: list[Tensor] = field(default_factory=list)
    later: list[Tensor] = field(default_factory=list)  # at the next reading of this optimizer, if it was one


class States:
    """What each weight was at its readings, to know a state in which it was before."""

    def __init__(self) -> None:
        self._seen: dict[int, dict[int, None]] = {}  # hashes, by the weight's place
        self._last: dict[int, Floats] = {}

    def find_again(self, places: Sequence[int], values: Floats) -> Floats:
        """1 where a weight is exactly what it was at an earlier reading, though most had moved since."""
        found = np.zeros(len(places))
        for row, place in enumerate(places):
            now, seen = values[row].copy(), self._seen.setdefault(place, {})
            last, state = self._last.get(place, now), hash(now.tobytes())
            moved = np.isfinite(now).all() and 2 * np.count_nonzero(now != last) > len(now)
            found[row] = state in seen and moved
            seen[state] = None
            if len(seen) > STATES:
                del seen[next(iter(seen))]
            self._last[place] = now
        return found


class Turns:
    """Reads the weights of some parameters in turn."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        plain = [p for p in parameters if is_readable(p) and not p.is_complex() and p.is_floating_point()]
        wide = [p for p in plain if p.ndim > 1] or plain
        self.elements = min(ELEMENTS, max((p.numel() for p in wide), default=1))
        self.weights = [p for p in wide if p.numel() >= self.elements > 0]
        self._next: dict[int, int] = {}  # by the optimizer's id
        self._open: Turn | None = None
        self._past: Turn | None = None  # the last reading, if it was of one weight
        self._last: dict[int, Floats] = {}  # the gradient of each weight at its last reading
        self._states = States()

    def begin(self, optimizer: int, held: Collection[int], everything: bool) -> None:
        """Before a step of an optimizer (its id, ids of what it holds): read one weight, or `everything`."""
        self._open = None
        past = self._past
        if past is not None and past.optimizer == optimizer:
            past.later, self._past = [self._some(self.weights[i]) for i in past.places], None
        chosen = self._choose(optimizer, held, everything)
        if chosen:
            weights = [self.weights[i] for i in chosen]
            grads = [w.grad for w in weights]
            self._open = Turn(
                chosen,
                [self._some(w) for w in weights],
                [self._some(g) for g in grads if g is not None],
                optimizer,
            )

    @property
    def reading(self) -> bool:
        """Whether a reading waits for the end of the step."""
        return self._open is not None

    def end(self) -> Turn | None:
        """After the step: the whole reading; None if there is none, or the weights have another size."""
        turn, self._open = self._open, None
        if turn is None:
            return None
        turn.after = [self._some(self.weights[i]) for i in turn.places]
        self._past = turn if len(turn.places) == 1 else None
        return turn

    def measure(self, turns: Sequence[Turn]) -> Floats:
        """`COLUMNS` of each reading, the median over its weights, shape (readings, columns)."""
        kinds = [[t for turn in turns for t in getattr(turn, k)] for k in ("before", "gradients", "after")]
        if any(
            len(t) != self.elements for kind in kinds for t in kind
        ):  # a weight was replaced by a smaller one
            return np.full((len(turns), len(COLUMNS)), math.nan)
        device = kinds[0][0].device
        every = [t for kind in kinds for t in kind]
        alike = len({(t.dtype, t.device) for t in every}) == 1
        stacked = torch.stack(every if alike else [t.to(device, torch.float64) for t in every])
        table = see(stacked.double().cpu())
        before, gradients, after = table.reshape(3, -1, self.elements)
        places = [p for turn in turns for p in turn.places]
        last = np.zeros_like(gradients)
        for row, place in enumerate(places):
            last[row] = self._last.get(place, 0.0)
            self._last[place] = gradients[row]
        found = np.concatenate(
            [
                _compare(before, gradients, after, last),
                self._find_undone(turns, before, after)[:, None],
                self._states.find_again(places, before)[:, None],
            ],
            1,
        )
        if len(places) == len(turns):
            return found
        parts = np.split(found, np.cumsum([len(t.places) for t in turns])[:-1])
        return np.stack([_take_medians(p) for p in parts])

    def _find_undone(self, turns: Sequence[Turn], before: Floats, after: Floats) -> Floats:
        """Of the elements that a step moved, the share that was back at the next reading, of each weight."""
        found, row = np.full(len(before), math.nan), 0
        for turn in turns:
            if len(turn.later) == 1 and len(turn.later[0]) == self.elements:
                then = see(turn.later[0].double().cpu())
                change = np.abs(after[row] - before[row])
                moved = change > 0
                if moved.any():
                    back = np.abs(then - before[row])[moved] <= BACK * change[moved]
                    found[row] = back.mean()
            row += len(turn.places)
        return found

    def _choose(self, optimizer: int, held: Collection[int], everything: bool) -> list[int]:
        """Places of the weights to read: they have a gradient, and this optimizer moves them."""
        count, first = len(self.weights), self._next.get(optimizer, 0)
        if everything:
            step = -(-count // MOST) or 1
            places = range(0, count, step)
            return [i for i in places if id(self.weights[i]) in held and _is_dense(self.weights[i].grad)]
        for k in range(count):
            place = (first + k) % count
            if id(self.weights[place]) in held and _is_dense(self.weights[place].grad):
                self._next[optimizer] = place + 1
                return [place]
        return []

    def _some(self, x: Tensor) -> Tensor:
        """Evenly spaced elements, a copy."""
        if x.is_contiguous() and x.numel() >= self.elements:
            return x.detach().as_strided((self.elements,), (x.numel() // self.elements or 1,)).clone()
        flat = x.detach().reshape(-1)
        return flat[:: flat.shape[0] // self.elements or 1][: self.elements].clone()

    def find_usual(self) -> float:
        """The median size of a gradient's element; NaN without any."""
        grads = [w.grad for w in self.weights[:FEW] if _is_dense(w.grad)]
        sizes = [self._some(g).abs().double().mean().cpu() for g in grads if g is not None]
        return float(torch.stack(sizes).median()) if sizes else math.nan

    @torch.no_grad()
    def find_resolution(self) -> float:
        """The median half unit in the last place of weights, a few of each; NaN without any."""
        halves = [_halve(self._some(w)) for w in self.weights[:MOST]]
        return float(torch.cat(halves).median()) if halves else math.nan


def _halve(some: Tensor) -> Tensor:
    """Half of the distance to the neighbours of a few weights, float64 on the CPU."""
    eps, some = torch.finfo(some.dtype).eps, some.double().cpu()
    _, exponent = torch.frexp(some[some != 0])
    return torch.ldexp(torch.full_like(exponent, eps / 4, dtype=torch.float64), exponent)


def _compare(before: Floats, gradients: Floats, after: Floats, last: Floats) -> Floats:
    """`COLUMNS` of each weight but the last two, from its elements; each table is (weights, elements)."""
    change, asked = after - before, gradients != 0
    norm, old, slope = _norms(change), _norms(before), _norms(gradients)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = np.stack([
            ((change == 0) & asked).sum(1) / asked.sum(1),
            np.log(norm) - np.log(old),
            -(change * gradients).sum(1) / (norm * slope),
            -(change * before).sum(1) / (norm * old),
            (gradients * last).sum(1) / (slope * _norms(last)),
            (~asked).mean(1),
        ], 1)  # fmt: skip
    found[np.isnan(found) | (found == math.inf)] = math.nan
    return found


def _take_medians(rows: Floats) -> Floats:
    """The median of each column, of what is known; NaN without any."""
    known = [column[~np.isnan(column)] for column in rows.T]
    return np.array([np.median(k) if len(k) else math.nan for k in known])


def _is_dense(gradient: Any) -> bool:
    return gradient is not None and type(gradient) is Tensor and gradient.layout == torch.strided


def _norms(rows: Floats) -> Floats:
    found: Floats = np.sqrt((rows * rows).sum(1))
    return found
