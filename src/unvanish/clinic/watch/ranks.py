"""Several processes that train together: who is who, and how they find each other without waiting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from unvanish.clinic.watch.exchange import Exchange
from unvanish.clinic.watch.feeds import SinkFeed
from unvanish.clinic.watch.line import LineBroken, open_line
from unvanish.core.caution import caution, locate
from unvanish.core.diagnosis import Finding
from unvanish.probes.intact import WRAPPERS
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.shards import count_processes
from unvanish.probes.live.updates import Parameters
from unvanish.store import Run, Store, StoreError, find_last_step, find_others
from unvanish.store.joining import Holding
from unvanish.store.schema import name_file


@dataclass(frozen=True)
class Company:
    """One rank among those that train together: its file, exchange and sinks, its first step."""

    rank: int = 0
    store: Store | None = None
    exchange: Exchange | None = None
    first: int = 0
    feeds: tuple[SinkFeed, ...] = ()

    def list_troubles(self) -> list[str]:
        """What the record lacks or did not get because something of it failed, a sentence each."""
        found = []
        if self.store is not None and self.store.fault:
            found.append(f"the record failed inside itself: {self.store.fault}")
        if self.exchange is not None:
            found += self.exchange.notes
            if self.exchange.failure:
                found.append(
                    f"rank {self.rank} has not talked to the others to the end: {self.exchange.failure}"
                )
            if lost := self.exchange.losses.describe():
                found.append(f"rank {self.rank}: {lost} did not come to the first rank's folder")
        return [*found, *(text for feed in self.feeds if (text := feed.describe_losses()))]

    def describe_losses(self) -> str:
        """What is not in the record of this rank, or did not come to the first one's, in words."""
        lost = "" if self.store is None else self.store.losses.describe()
        missed = "" if self.exchange is None else self.exchange.losses.describe()
        parts = [f", not in the record: {lost}" if lost else ""]
        return "".join([*parts, f", not at the first rank: {missed}" if missed else ""])

    def close(self) -> None:
        """Write what is left; harmless when repeated."""
        try:
            if self.exchange is not None:
                self.exchange.close()
                while self.feeds and self.exchange.mail.joined:  # what came at the very end
                    joined = self.exchange.mail.joined.popleft()
                    for feed in self.feeds:
                        feed.take_joined(joined)
        finally:
            try:
                if self.store is not None:
                    self.store.close()
            finally:
                for feed in self.feeds:
                    feed.close()

    @property
    def speaks(self) -> bool:
        """Whether findings are told here; else the first rank tells them."""
        return self.exchange.speaks if self.exchange is not None else True

    def name(self, finding: Finding) -> Finding:
        """A finding of this rank, for people who read those of all."""
        return finding if self.rank == 0 else name_rank(finding, self.rank)


def join_company(
    parameters: Parameters, run: str | Path | None, start: int | None, guard: WatchGuard
) -> Company:
    """Open this rank's file and its exchange with the others; StoreError if the first rank's is unusable.

    `start`: the first step to come; what the run holds from there on is taken back.
    """
    holding = Holding(own_rank(), count_processes(), parameters.layout, parameters.shards)
    folder = None if run is None else Path(run)
    store, sessions = (None, None) if folder is None else _open_store(folder, holding, start, guard)
    company = Company(holding.rank, store)
    try:
        company = replace(company, first=_find_first(store, start))
        company = _connect(company, holding, start, guard, folder, sharded=parameters.sharded)
        if store is not None:
            _describe(store, holding, company.first, sessions)
    except BaseException:
        company.close()
        raise
    return company


def _open_store(
    folder: Path, holding: Holding, start: int | None, guard: WatchGuard
) -> tuple[Store | None, list[list[int]] | None]:
    """The rank's own file, and the sessions that it notes; only the first rank's must be there."""
    store = None
    try:
        store = Store(folder, name=name_file(holding.rank), start=start)
        sessions = Run(store.folder, store.file.name).facts().get("sessions")
        if start is not None and holding.rank == 0:
            _take_back(folder, holding.ranks, start, guard)
    except StoreError as error:
        if store is not None:
            store.close()
        if holding.rank == 0:
            raise
        guard.note(str(error))
        return None, None
    except BaseException:
        if store is not None:
            store.close()
        raise
    return store, sessions


def _take_back(folder: Path, ranks: int, start: int, guard: WatchGuard) -> None:
    """Take back what ranks that are no longer there, or on other machines, have recorded."""
    for name in find_others(folder, ranks):
        try:
            Store(folder, name=name, start=start).close()
        except StoreError as error:
            guard.note(f"{name} may hold steps from {start} on that were taken back: {error}")


def _find_first(store: Store | None, start: int | None) -> int:
    """The number of the next step, as far as this rank can see."""
    if start is not None:
        return start
    last = None if store is None else find_last_step(store.folder)
    return 0 if last is None else last + 1


def _connect(
    company: Company,
    holding: Holding,
    start: int | None,
    guard: WatchGuard,
    folder: Path | None,
    *,
    sharded: bool,
) -> Company:
    """The same, with an exchange with the other ranks, if there are any, and the first step of them all."""
    if holding.ranks == 1:
        return company
    line, first = open_line(holding.rank), company.first
    if line is None:
        guard.note("the ranks do not hear of each other: their process group has no store to talk through")
        return company
    try:
        settled = line.settle("first", first)
        if start is None:
            first = max(first, settled) if holding.rank == 0 else settled
        exchange = Exchange(line, holding, folder, shards=sharded, first=first)
    except LineBroken as error:
        guard.note(f"the ranks do not hear of each other: {error}")
        return company
    except Exception as error:
        guard.note(text := f"the ranks do not hear of each other: {locate(error)}")
        caution(f"unvanish: {text}; the training goes on, each rank is watched alone. Please report this")
        return company
    return replace(company, exchange=exchange, first=first)


def _describe(store: Store, holding: Holding, first: int, before: list[list[int]] | None) -> None:
    """Note that this rank begins or continues; a process that trains alone is a rank only after others.

    Alone it notes only that it continues.
    """
    if holding.ranks > 1 or any(ranks > 1 for _, ranks in before or []):
        store.describe(rank=holding.rank, layout=holding.layout, shards=holding.shards)
    if holding.ranks > 1 or before is not None or first > 0:
        store.describe(sessions=[*(before or []), [first, holding.ranks]])


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
