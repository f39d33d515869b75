"""What was measured, on its way to the rules and to the run's folder.

Notable: on a device nothing is waited for; the numbers of the steps stay there until a look, and come over
with it in one transfer. Every rank keeps its own record; of shards, which say nothing alone, rules
  see on the first rank what all ranks have sent, some steps late, and on the others nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unvanish.clinic.watch.history import LIVE, History
from unvanish.clinic.watch.ranks import Company
from unvanish.clinic.watch.rows import PLACE, StepRow, list_for_store, tabulate
from unvanish.core.trace import Axis, Site
from unvanish.probes.live.turns import COLUMNS, Turn
from unvanish.probes.live.updates import MOVED
from unvanish.probes.recurrent.profile import Profile
from unvanish.store.records import Records, Tee
from unvanish.store.schema import PARTS

NUMBERS = ("norm", "before", "loss", "pull")  # of a row, which may wait on the device
BLOCK, OFTEN = 256, 1.0  # rows wait for so many, or so many seconds


@dataclass
class Chronicle:
    """The history that rules see, the store, and the rows that wait on the device."""

    company: Company
    sharded: bool
    history: History = field(default_factory=History)
    row: StepRow | None = None  # of the step just made; its loss may still come
    before: StepRow | None = None  # of the step before, which is complete
    waiting: list[StepRow] = field(default_factory=list)
    measure: Callable[[Sequence[Turn]], NDArray[np.float64]] | None = None  # what steps did to some weights
    wrote: float = 0.0  # when rows were last taken

    @property
    def writer(self) -> Records | None:
        """What takes the record of this rank: its file, the other ranks, the sinks."""
        return _join(self._keepers, *self.company.feeds)

    @property
    def _keepers(self) -> Records | None:
        """What takes the rows of this rank as they are: sinks of shards take what is joined."""
        return _join(self.company.store, self.company.exchange, *(() if self.sharded else self.company.feeds))

    @property
    def _joins(self) -> bool:
        """Whether what is joined from shards comes back to this rank."""
        exchange = self.company.exchange
        return exchange is not None and exchange.rank == 0 and not exchange.failure

    def begin(self, row: StepRow) -> None:
        """A step has been made; the one before is complete."""
        if self.row is not None:
            self.waiting.append(self.row)
        self.before, self.row = self.row, row

    @property
    def last_loss(self) -> float:
        """The loss of the step before, or the last one that has come over from a device; NaN if unknown."""
        if self.before is not None and type(self.before.loss) is float:
            return self.before.loss
        return self.history.steps.last_loss

    def chart(self, sites: tuple[Site, ...], axes: tuple[Axis, ...]) -> None:
        """The network has been mapped: its sites have rows from now on."""
        if self.writer is not None:  # first: axes without sites could not be read
            self.writer.sites(sites, (*LIVE, *PARTS) if self.sharded else LIVE)
        self.history = replace(self.history, sites=sites, axes=axes, looks=[], look_steps=[], past=None)

    def look(self, step: int, values: NDArray[np.float64]) -> None:
        """A look has come over."""
        if self._keepers is not None:
            self._keepers.sample(step, values)
        known = values[:, : len(LIVE)]
        if self.sharded:
            known = known.copy()
            known[:, [LIVE.index(name) for name in MOVED]] = math.nan
        self.history.add_look(step, known)
        self.take_joined()

    def profile(self, step: int, name: str, kind: str, profile: Profile) -> None:
        """The time profile of a recurrent layer."""
        self.history.profiles[name] = kind, profile
        if self.writer is not None:
            self.writer.profile(step, name, profile.state_log)

    def bring_look(self, before: Tensor, block: Tensor) -> NDArray[np.float64]:
        """Bring a look's block over, with all numbers that wait; `before`: the norm before clipping.

        The present row stays open, as its loss may still come. Returns the block, shape (sites, LIVE).
        """
        present = [self.row] if self.row is not None else []
        for row in present:
            row.before = before
        rest = self._bring([*self.waiting, *present], block)
        self.settle(due=True)
        return rest.reshape(block.shape)

    def bring_rest(self) -> None:
        """Bring over all rows that wait, the present one too, which is complete now."""
        rows = [*self.waiting, *([self.row] if self.row is not None else [])]
        self._bring(rows, None)
        self._add(rows)
        self.waiting, self.row = [], None

    def settle(self, due: bool) -> None:
        """Take the rows before the present one whose numbers are here: a block of them, or what is `due`.

        They wait until they are on their way.
        """
        row = self.row
        if not due and row is not None and len(self.waiting) < BLOCK and row.wall - self.wrote < OFTEN:
            return
        self.wrote = self.row.wall if self.row is not None else self.wrote
        waits = (k for k, row in enumerate(self.waiting) if type(row.norm) is not float and _is_late(row))
        known = next(waits, len(self.waiting))
        self._add(self.waiting[:known])
        self.waiting = self.waiting[known:]
        self.take_joined()

    def give_up(self) -> None:
        """Count the rows that still wait as lost."""
        rows, self.waiting, self.row = [*self.waiting, self.row], [], None
        if self.company.store is not None:
            for _ in filter(None, rows):
                self.company.store.losses.count("steps")

    def take_joined(self) -> None:
        """Take what was joined from shards since the last time."""
        exchange = self.company.exchange
        if not self.sharded or exchange is None:
            return
        while exchange.mail.joined:
            joined = exchange.mail.joined.popleft()
            self.history.steps.add_rows(joined.steps)
            for step, values in joined.looks:
                self.history.replace_look(step, values)
            for feed in self.company.feeds:
                feed.take_joined(joined)

    def _bring(self, rows: Sequence[StepRow], block: Tensor | None) -> NDArray[np.float64]:
        """Replace tensors in these rows by numbers, in one transfer with a block; the block, flat."""
        missing = [(row, k) for row in rows for k in NUMBERS if isinstance(getattr(row, k), Tensor)]
        numbers = self._transfer(missing, block)
        for (row, key), value in zip(missing, numbers, strict=False):
            setattr(row, key, float(value))
        return numbers[len(missing) :]

    def _transfer(self, missing: Sequence[tuple[StepRow, str]], block: Tensor | None) -> NDArray[np.float64]:
        device = block.device if block is not None else torch.device("cpu")
        parts = [getattr(row, k).detach().double().reshape(1).to(device) for row, k in missing]
        if block is not None:
            parts.append(block.flatten())
        return torch.cat(parts).cpu().numpy() if parts else np.empty(0)

    def _add(self, rows: Sequence[StepRow]) -> None:
        if not rows:
            return
        table = tabulate(rows)
        self._tell_deeds(rows, table)
        if not self.sharded:
            self.history.steps.add(table)  # notes which were clipped
        if self._keepers is not None:
            self._keepers.put_all("steps", list_for_store(table))
        if self.sharded and not self._joins:
            table[:, [PLACE["norm_log"], PLACE["before_log"]]] = math.nan
            table[:, PLACE["exact"]] = 0
            self.history.steps.add(table)
            for feed in self.company.feeds:
                feed.put_all("steps", list_for_store(table))

    def _tell_deeds(self, rows: Sequence[StepRow], table: NDArray[np.float64]) -> None:
        """Write what the steps did to some weights into their rows."""
        places = [i for i, row in enumerate(rows) if row.turn is not None]
        turns = [row.turn for row in rows if row.turn is not None]
        if turns and self.measure is not None:
            table[np.ix_(places, [PLACE[name] for name in COLUMNS])] = self.measure(turns)


def _join(*ends: Records | None) -> Records | None:
    """What hands every row on to each of these; None without any."""
    there = [end for end in ends if end is not None]
    return Tee(*there) if len(there) > 1 else there[0] if there else None


def _is_late(row: StepRow) -> bool:
    """Whether a row's norm or loss is still on its device."""
    return any(isinstance(x, Tensor) and x.device.type != "cpu" for x in (row.norm, row.loss))
