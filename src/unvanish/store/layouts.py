"""The sites of a run's earlier looks: a run that is continued with another network has others since.

Notable: the writer keeps the sites that it finds when it opens a file, up to which step they hold; a reader
joins those of all looks, those of the last session first, by role, path and kind.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unvanish.core.trace import Site
from unvanish.store.parts import DAMAGED, EARLIER, read_layout, read_site

MOST = 32  # earlier ones that are kept, the last of them


@dataclass(frozen=True)
class SiteLayout:
    """The rows and columns of the samples up to a step."""

    until: int
    sites: tuple[Site, ...]
    statistics: tuple[str, ...]


def keep_layout(connection: sqlite3.Connection, first: int) -> None:
    """Note that the present sites hold for the steps before `first`, with which the file is continued."""
    keys = (EARLIER, "site_count", "statistics")
    told = dict(connection.execute("SELECT key, value FROM meta WHERE key IN (?, ?, ?)", keys))
    query = "SELECT path, kind, role, facts FROM sites ORDER BY id LIMIT ?"
    sites = [list(row) for row in connection.execute(query, (told.get("site_count", -1),))]
    try:
        known = read_layout(told.get(EARLIER, "[]"))
        statistics = list(json.loads(told.get("statistics", "[]")))
    except DAMAGED:  # readers say so
        return
    kept = [[min(until, first - 1), rows, list(columns)] for until, rows, columns in known]
    if sites and [sites, statistics] != (kept[-1][1:] if kept else None):
        kept.append([first - 1, sites, statistics])
    elif kept:
        kept[-1][0] = first - 1
    if kept:
        with connection:
            row = EARLIER, json.dumps(kept[-MOST:])
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)


def read_layouts(connection: sqlite3.Connection) -> tuple[SiteLayout, ...]:
    """The earlier ones in order; ValueError or TypeError if they are damaged."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (EARLIER,)).fetchone()
    found: list[SiteLayout] = []
    for until, sites, statistics in read_layout(row[0]) if row is not None else []:
        if until > (found[-1].until if found else -1):  # else its steps were taken back
            found.append(SiteLayout(until, tuple(read_site(*s) for s in sites), statistics))
    return tuple(found)


def join_sites(present: Sequence[Site], earlier: Iterable[SiteLayout]) -> tuple[Site, ...]:
    """The present sites, then those that only earlier looks had."""
    known = {name for name, _ in name_sites(present)}
    joined = list(present)
    for layout in earlier:
        for name, site in name_sites(layout.sites):
            if name not in known:
                known.add(name)
                joined.append(site)
    return tuple(joined)


def name_sites(sites: Iterable[Site]) -> list[tuple[tuple[str, str, str, int], Site]]:
    """Each site under a name of its own: role, path, kind, and which of several alike it is."""
    counts: dict[tuple[str, str, str], int] = {}
    named: list[tuple[tuple[str, str, str, int], Site]] = []
    for site in sites:
        key = site.role, site.path, site.kind
        counts[key] = counts.get(key, -1) + 1
        named.append(((*key, counts[key]), site))
    return named
