"""A run's file from somebody else: shown, or refused in one line; its SQL is not run."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

import numpy as np
import pytest

from unvanish.core.diagnosis import Evidence, Finding
from unvanish.core.trace import Axis, Site
from unvanish.reports.run import data as run_data
from unvanish.reports.run.text import render
from unvanish.store import Run, Store, StoreError, open_run
from unvanish.store.plain_tables import guard

STATISTICS = ("backward_log", "update_log")


@pytest.fixture
def run(tmp_path):
    """A small run: two sites, three steps, a finding."""
    with_axis = [{"name": "depth", "kind": "depth", "sites": [1, 0]}]
    store = Store(tmp_path / "run", pause=0.01)
    store.describe(model="Net", axes=with_axis, overhead=0.01, looks=2, dropped=0)
    store.sites([Site("a", "linear"), Site("b", "relu")], STATISTICS)
    store.steps({"step": i, "wall": float(i), "loss": 1.0, "finite": 1} for i in range(3))
    for step in (0, 2):
        store.sample(step, np.full((2, 2), -1.0))
    finding = Finding("ACT001", "saturated", "warning", "because", ("a",), (Evidence("x", 1.0),))
    store.finding(1, 0, 2, finding)
    store.close()
    return tmp_path / "run"


def change(folder, *statements):
    with closing(sqlite3.connect(folder / "run.sqlite")) as file:
        file.executescript(";".join(statements))
        file.commit()


def read_all(folder):
    opened = open_run(folder)
    return render(opened), json.dumps(run_data.read_rows(opened), allow_nan=False)


def test_an_honest_run_is_read(run):
    text, _ = read_all(run)
    assert "ACT001" in text and "3 steps" in text


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("CREATE VIEW v AS SELECT 1", "a view"),
        ("ALTER TABLE steps RENAME TO other; CREATE VIEW steps AS SELECT * FROM other", "a "),
        (
            "DROP TABLE samples; CREATE VIEW samples AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL "
            "SELECT x+1 FROM c) SELECT x AS step, zeroblob(9) AS cells FROM c",
            "a view",
        ),
        ("CREATE TRIGGER t AFTER INSERT ON steps BEGIN DELETE FROM steps; END", "a trigger"),
        ("CREATE TABLE more (x)", "a table of another name"),
        ("CREATE INDEX i ON steps (abs(loss))", "a index"),
        ("DROP TABLE meta; CREATE VIRTUAL TABLE meta USING fts5(key, value)", "a virtual table"),
        ("ALTER TABLE steps ADD COLUMN x AS (abs(loss))", "a computed column"),
        ("DROP TABLE steps; CREATE TABLE steps (step, wall, loss)", "a table 'steps' with other columns"),
        ("DROP TABLE meta", "no such table"),
        ("UPDATE meta SET value = '" + "[" * 5000 + "' WHERE key = 'model'", "within each other"),
        ("UPDATE meta SET value = 'no json' WHERE key = 'model'", "not JSON"),
        ("UPDATE meta SET value = '[1]' WHERE key = 'model'", "model is no text"),
        ("UPDATE meta SET value = '7' WHERE key = 'statistics'", "statistics is no list"),
        ("UPDATE meta SET value = x'ff' WHERE key = 'model'", "no text"),
        ("UPDATE meta SET value = '[\"a\", \"a\"]' WHERE key = 'statistics'", "have one name"),
        ("UPDATE meta SET value = '[\"loss\"]' WHERE key = 'statistics'", "no gradient"),
        ("UPDATE meta SET value = '[{\"name\": \"d\"}]' WHERE key = 'axes'", "sites"),
        (
            'UPDATE meta SET value = \'[{"name": "d", "kind": "depth", "sites": [99]}]\' '
            "WHERE key = 'axes'",
            "not there",
        ),
        ("UPDATE sites SET role = 'king'", "role"),
        ("UPDATE sites SET facts = '[]'", "no table"),
        ("UPDATE steps SET loss = 'much'", "could not convert"),
        ("UPDATE steps SET loss = x'00ff'", "cannot read"),
        ("UPDATE samples SET cells = 'text'", "bytes-like"),
        ("UPDATE samples SET cells = x'00'", "multiple of element size"),
        ("UPDATE findings SET body = '{}'", "code"),
        ("UPDATE findings SET body = replace(body, 'warning', 'king')", "severity"),
        ('UPDATE findings SET body = replace(body, \'"sites": ["a"]\', \'"sites": 5\')', "no list"),
        ("UPDATE findings SET body = replace(body, '\"weight\"', '\"wieght\"')", "wieght"),
        (
            "WITH RECURSIVE c(x) AS (SELECT 9 UNION ALL SELECT x+1 FROM c WHERE x < 20000) "
            "INSERT INTO samples SELECT x, x'00000000' FROM c; "
            "WITH RECURSIVE c(x) AS (SELECT 9 UNION ALL SELECT x+1 FROM c WHERE x < 20000) "
            "INSERT INTO sites SELECT x, 'a', 'b', 'node', '{}' FROM c; "
            "DELETE FROM meta WHERE key = 'site_count'",
            "far more than it has room for",
        ),
    ],
)
def test_a_file_that_no_training_writes_is_refused_in_one_line(run, statement, told):
    change(run, statement)
    begun = time.perf_counter()
    with pytest.raises(StoreError) as error:
        read_all(run)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert time.perf_counter() - begun < 10


def test_a_damaged_file_is_refused_or_read(run):
    whole = (run / "run.sqlite").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), 30):
            content[place] = rng.integers(256)
        (run / "run.sqlite").write_bytes(bytes(content))
        try:
            read_all(run)
        except StoreError as error:
            assert "\n" not in str(error)


def test_reading_has_a_time_limit():
    with closing(sqlite3.connect(":memory:")) as reader:
        guard(reader, seconds=0.2)
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            reader.execute(
                "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT max(x) FROM c"
            ).fetchone()


def test_a_folder_may_have_any_name(run):
    for name in ("a?mode=rwc", "b#c", "d%20e", "f&cache=shared"):
        other = run.rename(run.with_name(name))
        assert "ACT001" in render(open_run(other)) and len(list(other.parent.iterdir())) == 1
        run = other


def test_an_axis_of_a_run_is_read(run):
    assert Run(run).trace().axes == (Axis("depth", "depth", (1, 0)),)
