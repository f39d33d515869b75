"""What a run is made of: rows of tables, made in one place for whoever keeps or sends them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from unvanish.core.diagnosis import Finding
from unvanish.core.plain import plain
from unvanish.core.run_facts import RunFacts
from unvanish.core.trace import Site
from unvanish.store.schema import STEP_COLUMNS

Record = tuple[str, tuple[Any, ...]]  # table, row


class Records(ABC):
    """Takes what a run consists of; `put` is where its rows go."""

    @abstractmethod
    def put(self, table: str, row: tuple[Any, ...]) -> None:
        """Take one row; never waits."""

    def put_all(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take rows of one table; never waits."""
        for row in rows:
            self.put(table, row)

    def describe(self, **facts: Unpack[RunFacts]) -> None:
        """Facts about the run, by key; a new value replaces the old one."""
        for key, value in facts.items():
            self.put("meta", (key, json.dumps(plain(value))))

    def sites(self, sites: Sequence[Site], statistics: Sequence[str]) -> None:
        """The rows and columns of the samples that follow."""
        self.describe(statistics=list(statistics), site_count=len(sites))
        for i, site in enumerate(sites):
            self.put("sites", (i, site.path, site.kind, site.role, json.dumps(plain(dict(site.facts)))))

    def steps(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """One row for each step; keys as in `STEP_COLUMNS`."""
        self.put_all(
            "steps", (tuple(row.get(c, 0 if c == "skipped" else None) for c in STEP_COLUMNS) for row in rows)
        )

    def sample(self, step: int, values: NDArray[Any]) -> None:
        """The statistics of the sites at a step, shape (sites, statistics)."""
        self.put("samples", (step, np.ascontiguousarray(values, np.float32).tobytes()))

    def profile(self, step: int, site: str, state: NDArray[Any]) -> None:
        """Ln of the gradient at every time step of a recurrent site, shape (time,)."""
        self.put("profiles", (step, site, np.ascontiguousarray(state, np.float32).tobytes()))

    def finding(self, key: int, first: int, last: int, finding: Finding) -> None:
        """A finding, from its first to its last step; the same key replaces it."""
        body = json.dumps(plain(finding))
        self.put("findings", (key, first, last, finding.code, finding.severity, body))


class Tee(Records):
    """Hands every row on to each of several."""

    def __init__(self, *ends: Records) -> None:
        self.ends = ends

    def put(self, table: str, row: tuple[Any, ...]) -> None:
        """Take one row; never waits."""
        for end in self.ends:
            end.put(table, row)

    def put_all(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take rows of one table; never waits."""
        kept = list(rows)
        for end in self.ends:
            end.put_all(table, kept)
