"""Broken images, labels and lines of a data set: reported, counted, and left out instead of fatal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

KEPT = 1000  # problems kept one by one; the rest is only counted


class DataError(ValueError):
    """Data that cannot be used; the text says what is wrong, where, and the next step."""


@dataclass(frozen=True, order=True)
class Problem:
    """One broken image, label or line: its file, its line (0: the whole file), its sort, and the reason."""

    file: str
    line: int
    sort: str
    why: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.why}"


@dataclass
class Problems(Sequence[Problem]):
    """The problems found so far: the first thousand in full, all counted once, by sort."""

    found: list[Problem] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    known: set[Problem] = field(default_factory=set)

    def add(self, file: Path | str, line: int, sort: str, why: str) -> None:
        """Add one problem."""
        self.extend([Problem(str(file), line, sort, why)])

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add several problems."""
        for problem in problems:
            if problem in self.known:
                continue
            self.known.add(problem)
            self.counted[problem.sort] += 1
            if len(self.found) < KEPT:
                self.found.append(problem)

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of each sort, the most frequent first."""
        return dict(self.counted.most_common())

    @property
    def total(self) -> int:
        """The number of all problems."""
        return self.counted.total()

    def summary(self, most: int = 5) -> str:
        """The counts and the first few problems, one per line; empty if there are none."""
        if not self.total:
            return ""
        head = ", ".join(f"{n} x {sort}" for sort, n in self.counts.items())
        lines = [f"{self.total} problems: {head}", *(f"  {p}" for p in self.found[:most])]
        rest = self.total - most
        return "\n".join(lines + ([f"  and {rest} more"] if rest > 0 else []))

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | Sequence[Problem]:
        return self.found[index]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.found)

    def __str__(self) -> str:
        return self.summary() or "no problems"
