"""A run of several ranks: each wrote its own file, and they are joined when they are read.

Notable:
- A step is joined from the ranks that have it; `lacking` says which have not.
- Ranks that see the same sites are joined; the sites of others (stages of a pipeline) follow, and are named
  by their rank if their own names are not enough.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unvanish.core.brief import Brief
from unvanish.core.facts import TraceFacts
from unvanish.core.names import show
from unvanish.core.run_facts import HistoryFacts, RunFacts
from unvanish.core.trace import Axis, Site, Trace
from unvanish.store.backlog import Losses
from unvanish.store.joining import Floats, Holding, join_cells, join_columns
from unvanish.store.pair import PairedRun
from unvanish.store.parts import read_axis
from unvanish.store.reader import (
    Event,
    Run,
    Standing,
    StoreError,
    find_gaps,
    refuse_damage,
    require_room,
    thin_out,
)
from unvanish.store.schema import FILE, OWN, PARTS, RELAYED, STEP_COLUMNS, VERSION

UNKNOWN = "give the folder that a training has named at its end, or a watch was given as `run`"
NAME = re.compile(r"(run|relay)\.([1-9][0-9]{0,5})\.sqlite")


@dataclass(frozen=True, repr=False)
class RankFile(Brief):
    """What one rank wrote."""

    rank: int
    run: Run

    def holding(self) -> Holding:
        """What it held of the model when it began last."""
        facts = self.run.facts()
        ranks = (facts.get("sessions") or [[0, 1]])[-1][1]
        return Holding(self.rank, int(ranks), str(facts.get("layout", "")), int(facts.get("shards", 1)))


@dataclass(frozen=True)
class Seen:
    """The sites of ranks that see the same, and these ranks."""

    sites: tuple[Site, ...]
    ranks: tuple[RankFile, ...]
    axes: tuple[Axis, ...]
    statistics: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class JoinedRun(Run):
    """A run folder into which several ranks wrote; `part` is the file of the first of them."""

    files: tuple[RankFile, ...] = ()

    def facts(self) -> RunFacts:
        """Facts about the run, of the first rank; losses of all."""
        found = [f.run.facts() for f in self.files]
        joined: dict[str, Any] = {**found[0]}
        for key in ("dropped", "lost_steps"):
            joined[key] = sum(f.get(key, 0) for f in found)
        known = next((f["statistics"] for f in found if "statistics" in f), None)
        if known is not None:
            joined["statistics"] = [s for s in known if s not in PARTS]
        return cast(RunFacts, joined)

    def steps(self) -> HistoryFacts:
        """An array for each column of `STEP_COLUMNS`, joined, shape (steps,); NaN: nothing was measured."""
        steps, there, tables = self._tables()
        with refuse_damage(self.folder):
            joined = join_columns(tables, there, STEP_COLUMNS, [f.holding() for f in self.files])
        joined[:, STEP_COLUMNS.index("step")] = steps
        return cast(HistoryFacts, {name: joined[:, i] for i, name in enumerate(STEP_COLUMNS)})

    def lacking(self) -> dict[int, list[int]]:
        """For each rank: the steps that it has not written, though others have, and it was there.

        Ranks without a file share lists.
        """
        steps, there, _ = self._tables()
        starts, counts = self._sessions()
        ranks = np.array([0, *counts])[np.searchsorted(starts, steps, "right")]  # that made each step
        places = {f.rank: i for i, f in enumerate(self.files)}
        found: dict[int, list[int]] = {}
        shared: dict[int, list[int]] = {}  # by their number: a rank was there whenever the next one was
        for rank in range(max(counts, default=0)):
            absent = ranks > rank
            if rank in places:
                absent &= ~there[places[rank]]
                found[rank] = self._list(steps[absent], 0)
            else:
                number = int(absent.sum())
                if number not in shared:
                    shared[number] = self._list(steps[absent], sum(shared))
                found[rank] = shared[number]
        return {rank: absent for rank, absent in found.items() if absent}

    def _list(self, steps: Floats, others: int) -> list[int]:
        """Steps as whole numbers, if these and the others are not more than the files have room for."""
        self._require_room(len(steps) + others)
        return [int(s) for s in steps]

    def _sessions(self) -> tuple[list[int], list[int]]:
        """The first step of each session, and how many ranks trained in it."""
        sessions: dict[int, int] = {}
        for file in self.files:
            for first, ranks in file.run.facts().get("sessions", []):
                sessions[first] = max(ranks, sessions.get(first, 0))
        starts = sorted(sessions)
        return starts, [sessions[start] for start in starts]

    def standing(self) -> Standing:
        """Who writes the run, whether the ranks of its last session closed it, and what its record lacks."""
        found = {f.rank: f.run.standing() for f in self.files}
        count = [math.inf, *self._sessions()[1]][-1]
        losses = [one.losses for one in found.values()]
        steps = [f.run.steps()["step"] for f in self.files]
        return Standing(
            writer=next((one.writer for one in found.values() if one.writer), ""),
            closed=all(one.closed for rank, one in found.items() if rank < count),
            losses=Losses(
                sum(one.dropped for one in losses),
                sum(one.steps for one in losses),
                next((one.failure for one in losses if one.failure), ""),
            ),
            gaps=find_gaps(np.unique(np.concatenate(steps))),
        )

    def _require_room(self, numbers: int) -> None:
        with refuse_damage(self.folder):
            require_room(numbers, sum(f.run.size for f in self.files))

    def _tables(self) -> tuple[Floats, NDArray[np.bool_], Floats]:
        """The steps of all ranks, which rank has which, and their columns (ranks, steps, columns)."""
        tables = []
        for file in self.files:
            columns: dict[str, Floats] = dict(file.run.steps())  # type: ignore[arg-type]
            tables.append(np.stack([columns[c] for c in STEP_COLUMNS], 1))
        steps = np.unique(np.concatenate([t[:, 0] for t in tables]))
        there = np.array([np.isin(steps, t[:, 0]) for t in tables])
        self._require_room(len(tables) * len(steps) * len(STEP_COLUMNS))
        whole = np.full((len(tables), len(steps), len(STEP_COLUMNS)), math.nan)
        for place, table in enumerate(tables):
            whole[place, there[place]] = table
        return steps, there, whole

    def sites(self) -> tuple[Site, ...]:
        """The rows of the samples: those of the first rank, then those that only others have."""
        return tuple(site for seen in self._seen() for site in seen.sites)

    def sample_steps(self) -> NDArray[np.int64]:
        """The steps at which any rank looked at its sites."""
        return np.unique(np.concatenate([f.run.sample_steps() for f in self.files]))

    def trace(self, most: int | None = None) -> Trace:
        """The samples as a Trace, joined over the ranks; see `Run.trace`."""
        facts, groups = self.facts(), self._seen()
        statistics = tuple(facts.get("statistics", ()))
        steps = thin_out(self.sample_steps(), most)
        with refuse_damage(self.folder):
            blocks = [_join_samples(seen, steps, statistics) for seen in groups]
            values = np.concatenate(blocks, 1) if blocks else np.empty((len(steps), 0, len(statistics)))
        axes: list[Axis] = []
        offset = 0
        for seen in groups:
            name = "" if not offset else f", rank {seen.ranks[0].rank}"
            axes += [
                replace(a, name=a.name + name, sites=tuple(offset + i for i in a.sites)) for a in seen.axes
            ]
            offset += len(seen.sites)
        sites = tuple(site for seen in groups for site in seen.sites)
        about = cast(TraceFacts, facts)
        return Trace(sites, values, tuple(axes), {**about, "steps": steps.tolist()}, statistics)

    def _seen(self) -> list[Seen]:
        groups: dict[tuple[tuple[str, str, str], ...], list[RankFile]] = {}
        for file in self.files:
            sites = file.run.sites()
            if sites:
                groups.setdefault(tuple((s.path, s.kind, s.role) for s in sites), []).append(file)
        taken: set[tuple[str, str, str]] = set()
        found = []
        for key, ranks in groups.items():
            first = ranks[0]
            clash = not taken.isdisjoint(key)
            sites = tuple(
                replace(s, path=f"rank {first.rank}: {s.path}") if clash else s for s in first.run.sites()
            )
            taken.update(key)
            facts = first.run.facts()
            with refuse_damage(first.run.file):
                axes = tuple(read_axis(a, len(sites)) for a in facts.get("axes", ()))
            found.append(Seen(sites, tuple(ranks), axes, tuple(facts.get("statistics", ()))))
        return found

    def profiles(self) -> dict[str, tuple[NDArray[np.int64], list[Floats]]]:
        """For each recurrent layer and direction, of the first rank that has it; see `Run.profiles`."""
        found: dict[str, tuple[NDArray[np.int64], list[Floats]]] = {}
        for file in reversed(self.files):
            found.update(file.run.profiles())
        return found

    def findings(self) -> tuple[Event, ...]:
        """The findings of all ranks, each once; those that the first file has not are named by their rank."""
        found = list(self.files[0].run.findings())
        for file in self.files[1:]:
            known = {event.finding.code for event in found}
            for event in file.run.findings():
                if event.finding.code not in known:
                    cause = f"on rank {file.rank}: {event.finding.cause}"
                    found.append(replace(event, finding=replace(event.finding, cause=cause)))
        return tuple(sorted(found, key=lambda e: e.first))


def open_run(folder: str | Path) -> Run:
    """A run for reading; StoreError if the folder holds no run, or one of a newer version."""
    place = Path(folder)
    files = _find_files(place)
    if not files:
        near = sorted(p.parent for p in place.glob(f"*/{FILE}"))[:3]
        what = f"holds no run (no {FILE} in it)" if place.is_dir() or not place.exists() else "is no folder"
        hint = f"there are runs in {', '.join(map(show, near))}" if near else UNKNOWN
        raise StoreError(f"{folder} {what}; {hint}")
    for file in files:
        version = file.run.version()
        if version > VERSION:
            raise StoreError(f"{folder} was written by a newer unvanish (version {version} of the tables)")
    part = files[0].run.part
    alone = len(files) == 1 and part == FILE and not _has_company(files[0].run)
    return Run(place) if alone else JoinedRun(place, part, files)


def _has_company(run: Run) -> bool:
    """Whether a rank's file says that others trained with it; those who read it judge what is damaged."""
    with contextlib.suppress(StoreError):
        return any(ranks > 1 for _, ranks in run.facts().get("sessions", []))
    return False


def find_last_step(folder: Path) -> int | None:
    """The last step that any rank has written; None for a new run."""
    found = []
    for file in _find_files(folder):
        with contextlib.suppress(StoreError):  # another rank makes it at this moment
            found.append(file.run.last_step())
    return max((step for step in found if step is not None), default=None)


def find_others(folder: Path, ranks: int) -> list[str]:
    """The files of a run that none of so many ranks writes itself: those of others, and relayed ones."""
    names = [path.name for path in folder.glob("*.sqlite")]
    found = [match for name in sorted(names) if (match := NAME.fullmatch(name))]
    return [match[0] for match in found if match[1] == "relay" or int(match[2]) >= ranks]


def _find_files(folder: Path) -> tuple[RankFile, ...]:
    """The files of all ranks; of one rank what it wrote itself and what was relayed, as one."""
    ranks = {0} if (folder / FILE).is_file() else set()
    for path in folder.glob("*.sqlite"):
        if (match := NAME.fullmatch(path.name)) and path.is_file():
            ranks.add(int(match[2]))
    found = []
    for rank in sorted(ranks):
        names = [FILE] if rank == 0 else [OWN.format(rank), RELAYED.format(rank)]
        there = [name for name in names if (folder / name).is_file()]
        found.append(RankFile(rank, Run(folder, *there) if len(there) == 1 else PairedRun(folder, *there)))
    return tuple(found)


def _join_samples(seen: Seen, steps: NDArray[np.int64], statistics: Sequence[str]) -> Floats:
    """The samples of ranks that see the same sites, (steps, sites, statistics)."""
    count, columns = len(seen.sites), len(seen.statistics)
    size = sum(f.run.size for f in seen.ranks)
    require_room(len(seen.ranks) * len(steps) * count * columns, size)
    cells = np.array([f.run.cells(steps, count, columns) for f in seen.ranks])
    there = np.array([np.isin(steps, f.run.sample_steps()) for f in seen.ranks])
    joined = np.full((len(steps), count, len(statistics)), math.nan)
    places = [i for i, s in enumerate(seen.statistics) if s in statistics]
    holding = seen.ranks[0].holding()
    parameters = np.array([s.role == "parameter" for s in seen.sites], bool)
    for row in range(len(steps)):
        known = cells[there[:, row], row]
        if len(known):
            joined[row] = known.mean(0)[:, places]
            if set(PARTS) <= set(seen.statistics):
                joined[row, parameters] = join_cells(known[:, parameters], seen.statistics, holding)
    return joined
