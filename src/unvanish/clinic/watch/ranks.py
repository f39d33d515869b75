"""Several processes that train together: who is who, and how they find each other without waiting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from unvanish.clinic.watch.exchange import Exchange
from unvanish.clinic.watch.line import open_line
from unvanish.core.diagnosis import Finding
from unvanish.probes.intact import WRAPPERS
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.shards import count_processes
from unvanish.probes.live.updates import Parameters
from unvanish.store import Run, Store, StoreError, find_last_step
from unvanish.store.joining import Holding
from unvanish.store.schema import name_file


@dataclass(frozen=True)
class Company:
    """One rank among those that train together: its file, its end of the exchange, its first step."""

    rank: int = 0
    store: Store | None = None
    exchange: Exchange | None = None
    first: int = 0

    def close(self) -> None:
        """Write what is left; harmless when repeated."""
        if self.exchange is not None:
            self.exchange.close()
        if self.store is not None:
            self.store.close()

    @property
    def speaks(self) -> bool:
        """Whether findings are told here; else the first rank tells them."""
        return self.exchange.speaks if self.exchange is not None else True

    def name(self, finding: Finding) -> Finding:
        """A finding of this rank, for people who read those of all."""
        return finding if self.rank == 0 else name_rank(finding, self.rank)


def join_company(parameters: Parameters, run: str | Path | None, guard: WatchGuard) -> Company:
    """Open this rank's file and its exchange with the others; StoreError if the first rank's is unusable."""
    ranks = count_processes()
    holding = Holding(own_rank(), ranks, parameters.layout, parameters.shards)
    store = None if run is None else _open_store(Path(run), holding.rank, guard)
    last = None if store is None else find_last_step(store.folder)
    first = 0 if last is None else last + 1
    exchange = None
    if ranks > 1 and (line := open_line(holding.rank)) is not None:
        try:
            first = (
                max(first, line.settle("first", first)) if holding.rank == 0 else line.settle("first", first)
            )
            folder = None if run is None else Path(run)
            exchange = Exchange(line, holding, folder, shards=parameters.sharded)
        except Exception as error:
            guard.note(f"the ranks do not hear of each other: {type(error).__name__}: {error}")
    if ranks > 1 and exchange is None:
        guard.note("the ranks do not hear of each other: their process group has no store to talk through")
    if store is not None:
        _describe(store, holding, first)
    return Company(holding.rank, store, exchange, first)


def _open_store(folder: Path, rank: int, guard: WatchGuard) -> Store | None:
    """The rank's own file; only the first rank's must be there."""
    try:
        return Store(folder, name=name_file(rank))
    except StoreError as error:
        if rank == 0:
            raise
        guard.note(str(error))
        return None


def _describe(store: Store, holding: Holding, first: int) -> None:
    """Note that this rank begins or continues; a process that trains alone notes it only after others."""
    before = Run(store.folder, store.file.name).facts().get("sessions", [])
    if holding.ranks > 1:
        store.describe(rank=holding.rank, layout=holding.layout, shards=holding.shards)
    if holding.ranks > 1 or before:
        store.describe(sessions=[*before, [first, holding.ranks]])


def is_replicated(model: nn.Module) -> bool:
    """Whether other processes, or wrappers, hold copies of the model."""
    return isinstance(model, WRAPPERS) or count_processes() > 1


def own_rank() -> int:
    """The number of this process among those that train together; 0 if it trains alone."""
    return int(torch.distributed.get_rank()) if count_processes() > 1 else 0


def plan_look(number: int, interval: int, ranks: int, fixed: bool) -> int:
    """The step of the next look. Several ranks meet, without a word, at multiples of powers of two."""
    if ranks == 1 or fixed:
        return number + interval
    grid = 1 << (interval - 1).bit_length()
    return (number // grid + 1) * grid


def name_rank(finding: Finding, rank: int) -> Finding:
    """A finding that says on which rank it was made."""
    return replace(finding, cause=f"on rank {rank}: {finding.cause}")
