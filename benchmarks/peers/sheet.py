"""The tables: what each tool said, how much of it was right, its false alarms, its cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from benchmarks.peers.kinds import Answer, name_kind, name_place

COLUMNS = (
    "tool",
    "planted: said something",
    "names the kind",
    "names the place",
    "reports: said something",
    "names the kind",
    "alarms on fixed twins and mended reports",
    "on healthy networks",
    "fails",
    "same losses",
    "cost",
)


@dataclass
class Row:
    """A tool's answers; `trouble`: why there are none."""

    title: str
    used: str
    versions: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    answers: Sequence[Answer] = ()
    trouble: str = ""


@dataclass(frozen=True)
class Judged:
    """The figures of a tool: (how many, of how many) each, NaN times where there is no cost."""

    title: str
    version: str
    said: tuple[int, int] = (0, 0)
    kind: tuple[int, int] = (0, 0)
    place: tuple[int, int] = (0, 0)
    reported: tuple[int, int] = (0, 0)
    reported_kind: tuple[int, int] = (0, 0)
    fixed: tuple[int, int] = (0, 0)
    healthy: tuple[int, int] = (0, 0)
    fails: tuple[int, int] = (0, 0)
    same: tuple[int, int] | None = None
    cost: str = ""
    trouble: str = ""


def judge(row: Row, plain: Row | None) -> Judged:
    """The figures of a row; a failure is neither silence on a sick network nor an alarm."""
    version = ", ".join(f"{name} {version}" for name, version in row.versions.items() if name != "setuptools")
    if row.trouble:
        return Judged(row.title, version, trouble=row.trouble)
    groups = {group: [a for a in row.answers if a.group == group] for group in {a.group for a in row.answers}}
    planted, reported = groups.get("planted", []), groups.get("reported", [])
    fixed = groups.get("twin", []) + groups.get("mended", [])
    healthy = groups.get("healthy", []) + groups.get("architecture", [])
    where = [name_place(a.said, a.exam) for a in planted]
    return Judged(
        row.title,
        version,
        count(planted, speaks),
        count(planted, names),
        (sum(bool(w) for w in where), sum(w is not None for w in where)),
        count(reported, speaks),
        count(reported, names),
        count(fixed, speaks),
        count(healthy, speaks),
        count(row.answers, lambda a: bool(a.error)),
        compare(row, plain) if row.used != "one call" else None,
        tell_cost(row.cost),
    )


def count(answers: Iterable[Answer], holds: Callable[[Answer], bool]) -> tuple[int, int]:
    """(how many it holds for, how many there are)."""
    held = [holds(answer) for answer in answers]
    return sum(held), len(held)


def speaks(answer: Answer) -> bool:
    """Whether it said anything above a note."""
    return bool(answer.said)


def names(answer: Answer) -> bool:
    """Whether one of its claims is of the right kind."""
    return name_kind(answer.said, answer.exam.codes)


def compare(row: Row, plain: Row | None) -> tuple[int, int] | None:
    """How many trainings had the same losses, bit for bit, as without the tool."""
    if plain is None:
        return None
    alone = {(a.group, a.case): a.losses for a in plain.answers if not a.error}
    both = [(a.losses, alone[a.group, a.case]) for a in row.answers if not a.error and a.losses]
    return sum(same(mine, theirs) for mine, theirs in both), len(both)


def same(mine: Sequence[float], theirs: Sequence[float]) -> bool:
    """Equal numbers, a NaN being equal to a NaN, as far as both go."""
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(mine, theirs, strict=False))


def tell_cost(cost: Mapping[str, Any]) -> str:
    """A monitor's step over a plain step with its quartiles; a call in plain steps."""
    if "times" in cost:
        return f"{cost['times']:.2f} ({cost['low']:.2f} to {cost['high']:.2f}) a step"
    return f"a call: {cost['calls']:.1f} steps" if "calls" in cost else ""


def share(pair: tuple[int, int] | None) -> str:
    """Such as 5 of 20."""
    return f"{pair[0]} of {pair[1]}" if pair and pair[1] else "-"


def cells(judged: Judged) -> list[str]:
    """A row of the table."""
    if judged.trouble:
        return [judged.title, judged.trouble, *[""] * (len(COLUMNS) - 2)]
    if not judged.fails[1]:
        return [judged.title, "claims nothing", *[""] * (len(COLUMNS) - 3), judged.cost]
    pairs = (
        judged.said,
        judged.kind,
        judged.place,
        judged.reported,
        judged.reported_kind,
        judged.fixed,
        judged.healthy,
        judged.fails,
        judged.same,
    )
    return [judged.title, *map(share, pairs), judged.cost]


def table(sheet: Sequence[Judged]) -> Table:
    """For the terminal."""
    shown = Table(title="what each says, of sick and of healthy networks")
    for column in COLUMNS:
        shown.add_column(column)
    for judged in sheet:
        shown.add_row(*cells(judged))
    return shown


def markdown(sheet: Sequence[Judged], others: Mapping[str, str]) -> str:
    """For docs/peers.md: the table, the versions, and what was not asked."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(cells(judged)) + " |" for judged in sheet]
    lines += ["", "Versions: " + "; ".join(dict.fromkeys(j.version for j in sheet if j.version)) + ".", ""]
    lines += ["| not asked | why |", "|---|---|"]
    lines += [f"| {title} | {why} |" for title, why in others.items()]
    return "\n".join(lines) + "\n"


def figures(sheet: Sequence[Judged]) -> dict[str, float | int | str | None]:
    """For the record of runs."""
    found: dict[str, float | int | str | None] = {}
    for judged in sheet:
        if not judged.trouble:
            found[f"{judged.title}: kinds named"] = judged.kind[0] + judged.reported_kind[0]
            found[f"{judged.title}: alarms"] = judged.fixed[0] + judged.healthy[0]
    return found


__all__ = ["Judged", "Row", "figures", "judge", "markdown", "table"]
