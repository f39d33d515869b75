"""The rows of the steps as columns: what is usual is filled in, and nothing else changes."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from unvanish.store.columns import read_steps, read_table
from unvanish.store.schema import STEP_COLUMNS, TABLES


@pytest.fixture
def reader() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(TABLES)
        yield connection


def test_columns_are_what_the_rows_hold(reader: sqlite3.Connection) -> None:
    rows = [
        (2, 1.0, 0.5, -1.0, None, 1, None, 0.1, 0),
        (3, 2.0, None, -math.inf, 1.5, 1, 1.0, 0.1, 0),
        (5, None, math.inf, None, None, 0, None, None, 1),
        (8, 4.0, -0.25, 2.0, None, 1, 0.0, 0.2, 0),
    ]
    reader.executemany(f"INSERT INTO steps VALUES ({','.join('?' * len(STEP_COLUMNS))})", rows)
    reader.commit()
    expected = np.array([[math.nan if v is None else v for v in row] for row in rows])
    np.testing.assert_array_equal(read_table(reader), expected)
    assert read_steps(reader).tolist() == [2, 3, 5, 8]


def test_steps_without_a_gap_are_counted_only(reader: sqlite3.Connection) -> None:
    assert read_table(reader).shape == (0, len(STEP_COLUMNS))
    assert read_steps(reader).tolist() == []
    reader.executemany("INSERT INTO steps (step, finite) VALUES (?, 1)", ((k,) for k in range(4, 9)))
    assert read_steps(reader).tolist() == [4, 5, 6, 7, 8]


def test_what_is_no_number_is_refused(reader: sqlite3.Connection) -> None:
    reader.execute("INSERT INTO steps (step, finite, loss) VALUES (0, 1, 'much')")
    reader.commit()
    with pytest.raises(ValueError, match="float"):
        read_table(reader)
