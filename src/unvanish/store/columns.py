"""The rows of the steps read as columns of numbers, a million of them in about a second.

Notable: what is usual of a step (a finite gradient, nothing clipped or skipped) is read only of the steps of
which it is not true; the others are filled in.
"""

from __future__ import annotations

import sqlite3
import sys
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from unvanish.store.schema import STEP_COLUMNS

UNKNOWN = -sys.float_info.max  # stands for NULL on its way
USUAL = {"before_log": None, "finite": 1, "clipped": None, "skipped": 0}  # columns of which few rows differ
Floats = NDArray[np.float64]


def read_table(reader: sqlite3.Connection) -> Floats:
    """Every step in order, shape (steps, STEP_COLUMNS); NaN where nothing was measured.

    Raises ValueError, TypeError or OverflowError for what is no number.
    """
    often = [name for name in STEP_COLUMNS if name not in USUAL]
    chosen = ", ".join(f"ifnull({name}, {UNKNOWN!r})" for name in often)
    unusual = " OR ".join(f"{name} IS NOT {'NULL' if v is None else v}" for name, v in USUAL.items())
    reader.execute("BEGIN")  # both readings see the same rows, also of a file that grows
    rows = reader.execute(f"SELECT {chosen} FROM steps ORDER BY step")
    known = np.fromiter(chain.from_iterable(rows), np.float64).reshape(-1, len(often))
    rows = reader.execute(f"SELECT step, {', '.join(USUAL)} FROM steps WHERE {unusual} ORDER BY step")
    others = np.array(rows.fetchall(), np.float64).reshape(-1, 1 + len(USUAL))
    reader.rollback()
    known[known == UNKNOWN] = np.nan
    usual = [np.nan if (value := USUAL.get(name)) is None else value for name in STEP_COLUMNS]
    table = np.tile(np.array(usual, np.float64), (len(known), 1))
    table[:, [STEP_COLUMNS.index(name) for name in often]] = known
    places = np.searchsorted(table[:, STEP_COLUMNS.index("step")], others[:, 0])
    table[places[:, None], [STEP_COLUMNS.index(name) for name in USUAL]] = others[:, 1:]
    return table


def read_steps(reader: sqlite3.Connection) -> NDArray[np.int64]:
    """The numbers of the steps that are there, in order."""
    count, first, last = reader.execute("SELECT count(*), min(step), max(step) FROM steps").fetchone()
    if count and last - first + 1 == count:
        return np.arange(first, last + 1, dtype=np.int64)
    return np.array([row[0] for row in reader.execute("SELECT step FROM steps ORDER BY step")], np.int64)
