"""The run folder: what is written can be read, while it grows, after a kill, and when the disk is full."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unvanish.core.diagnosis import Evidence, Finding, Remedy
from unvanish.core.trace import Site
from unvanish.store import Store, StoreError, open_run
from unvanish.store.schema import STEP_COLUMNS, VERSION

SITES = (Site("a", "Linear", 0, "node", {"order": 0}), Site("b", "ReLU", 0, "node", {"shape": (2, 3)}))


def row(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "wall": 1.0 * step, "loss": 2.0, "norm_log": -0.5, "finite": 1, "lr": 0.1, **more}


def continue_run(folder: Path, sites: tuple[Site, ...], step: int, start: int | None, *values: float) -> None:
    """One more session of a run: two steps, and a look at the first."""
    store = Store(folder, start=start, pause=0.01)
    store.sites(sites, ("x",))
    store.steps([row(step), row(step + 1)])
    store.sample(step, np.array(values)[:, None])
    store.close()


def test_looks_of_earlier_sites_are_read_with_them(tmp_path: Path) -> None:
    other = (Site("b", "ReLU", 0, "node", {"shape": (9,)}), Site("c", "Linear", 0, "node", {}))
    continue_run(tmp_path, SITES, 0, None, 1.0, 2.0)
    continue_run(tmp_path, SITES, 2, None, 3.0, 4.0)
    continue_run(tmp_path, other, 4, None, 5.0, 6.0)
    trace = open_run(tmp_path).trace()
    assert [s.path for s in trace.sites] == ["b", "c", "a"] and trace.facts["steps"] == [0, 2, 4]
    seen = trace.values[:, :, 0]
    np.testing.assert_array_equal(seen, [[2, math.nan, 1], [4, math.nan, 3], [5, 6, math.nan]])
    assert [layout.until for layout in open_run(tmp_path).earlier()] == [3]
    continue_run(tmp_path, SITES[:1], 2, 2, 7.0)  # what was made from step 2 on is taken back
    trace = open_run(tmp_path).trace()
    assert [s.path for s in trace.sites] == ["a", "b"] and trace.facts["steps"] == [0, 2]
    np.testing.assert_array_equal(trace.values[:, :, 0], [[1, 2], [7, math.nan]])
    assert "earlier" not in open_run(tmp_path).facts()
    continue_run(tmp_path, other, 0, 0, 8.0, 9.0)  # all of it: nothing is left of the other sites
    assert [s.path for s in open_run(tmp_path).trace().sites] == ["b", "c"]


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    finding = Finding(
        "ACT003", "dead-units", "warning", "because", ("a",), (Evidence("share", math.inf),),
        (Remedy("zero-bias", ("a",), "why"),), consequences=(Finding("GRF004", "x", "note", "c"),),
    )  # fmt: skip
    store = Store(tmp_path / "run", pause=0.01)
    store.describe(name="net", budget=0.01)
    store.sites(SITES, ("x", "y"))
    values = np.array([[1.5, math.nan], [-math.inf, 2.0]])
    store.steps([row(0), row(1, finite=0, norm_log=math.inf, loss=None)])
    store.sample(1, values)
    store.profile(1, "core", np.array([0.0, -1.0]))
    store.finding(7, 0, 1, finding)
    assert store.flush()
    run = open_run(tmp_path / "run")  # while it is still open
    assert run.facts()["name"] == "net"
    assert run.steps()["norm_log"].tolist() == [-0.5, math.inf]
    assert math.isnan(run.steps()["loss"][1])
    trace = run.trace()
    np.testing.assert_array_equal(trace.values[0], values)
    assert trace.facts["steps"] == [1] and trace.statistics == ("x", "y")
    assert [s.path for s in trace.sites] == ["a", "b"]
    assert run.profiles()["core"][1][0].tolist() == [0.0, -1.0]
    (event,) = run.findings()
    assert (event.first, event.last, event.finding.code) == (0, 1, "ACT003")
    assert event.finding.evidence[0].value == "inf"
    assert event.finding.consequences[0].code == "GRF004"
    store.close()
    store.close()


def test_a_run_is_continued(tmp_path: Path) -> None:
    for start in (0, 3):
        store = Store(tmp_path, pause=0.01)
        assert store.first == start
        store.steps(row(s) for s in range(start, start + 3))
        store.close()
    assert open_run(tmp_path).steps()["step"].tolist() == [0, 1, 2, 3, 4, 5]


def test_folders_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write a run into"):
        Store(tmp_path / "file" / "run")
    with pytest.raises(StoreError, match="holds no run"):
        open_run(tmp_path)
    Store(tmp_path / "one").close()
    with pytest.raises(StoreError, match=r"there are runs in .*one"):
        open_run(tmp_path)
    with sqlite3.connect(tmp_path / "one" / "run.sqlite") as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match="newer"):
        open_run(tmp_path / "one")
    with pytest.raises(StoreError, match="newer"):
        Store(tmp_path / "one")


def test_old_samples_are_thinned_and_findings_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=4000, pause=0.005)
    store.sites(SITES, ("x", "y"))
    store.finding(0, 3, 5, Finding("ACT003", "dead-units", "warning", "because"))
    for step in range(1000):  # 16 bytes each
        store.sample(step, np.full((2, 2), float(step)))
        store.steps([row(step)])
        if step % 50 == 49:
            assert store.flush()
    store.close()
    run = open_run(tmp_path)
    kept = run.sample_steps()
    assert 100 < len(kept) <= 250
    assert {3, 5, 999} <= set(kept.tolist())
    assert np.diff(kept)[-50:].max() == 1 < np.diff(kept)[:20].max()  # the old ones are the sparse ones
    assert len(run.steps()["step"]) == 1000


@given(most=st.integers(1, 40), count=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_a_thinned_trace_keeps_its_last_look(tmp_path_factory: Any, most: int, count: int) -> None:
    folder = tmp_path_factory.mktemp("run")
    store = Store(folder, pause=0.001)
    store.sites(SITES, ("x", "y"))
    for step in range(count):
        store.sample(step, np.full((2, 2), float(step)))
    store.close()
    steps = open_run(folder).trace(most).facts["steps"]
    assert len(steps) == min(most, count)
    assert steps[-1] == count - 1 or most == 1


WRITER = """
import sys, numpy as np
from unvanish.store import Store
from unvanish.core.trace import Site
store = Store(sys.argv[1], pause=0.002)
store.sites((Site("a", "Linear"),), ("x",))
print("ready", flush=True)
step = store.first
while True:
    store.steps([dict(step=step, wall=0.0, loss=float(step), norm_log=0.0, finite=1)])
    store.sample(step, np.full((1, 1), float(step)))
    step += 1
    if step % 64 == 0:
        store.flush()
"""


def test_a_killed_run_is_intact(tmp_path: Path) -> None:
    """Twenty times kill -9, at twenty different moments, always into the same folder."""
    seen = 0
    for k in range(20):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(0.01 + 0.007 * k)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        run = open_run(tmp_path)
        steps = run.steps()
        assert np.array_equal(steps["loss"], steps["step"])  # no row is half
        assert np.array_equal(np.diff(steps["step"]), np.ones(max(0, len(steps["step"]) - 1)))
        trace = run.trace()
        assert trace.values[:, 0, 0].tolist() == trace.facts["steps"]
        assert len(steps["step"]) >= seen
        seen = len(steps["step"])
        with sqlite3.connect(run.file) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
    assert seen > 100


def test_columns_are_those_of_the_table() -> None:
    from unvanish.store.schema import TABLES

    declared = TABLES.split("CREATE TABLE IF NOT EXISTS steps (")[1].split(");")[0]
    assert tuple(part.split()[0] for part in declared.split(",")) == STEP_COLUMNS
