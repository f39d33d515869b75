"""What a failing disk does to a run: the training goes on; a step is in the file, or counted as lost."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from unvanish.reports.run.text import render
from unvanish.store import Store, StoreError, open_run
from unvanish.store.backlog import RECORDS, Backlog


def rows(first: int, last: int) -> list[dict[str, float]]:
    return [
        {"step": s, "wall": 0.1 * s, "loss": 1.0, "norm_log": 0.0, "finite": 1} for s in range(first, last)
    ]


def wait(until: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert until()


@contextmanager
def full_disk(size: int = 60_000) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: writing fails as it does on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def make_run(folder: Path, steps: int = 30) -> Path:
    store = Store(folder, pause=0.01)
    store.steps(rows(0, steps))
    store.close()
    return folder


def test_every_step_is_in_the_file_or_counted_when_the_disk_is_full(tmp_path: Path) -> None:
    store = Store(tmp_path / "run", pause=0.005)
    with warnings.catch_warnings(record=True) as told, full_disk():
        warnings.simplefilter("always")
        for step in range(300):
            store.steps(rows(step, step + 1))
            store.sample(step, np.zeros((20, 20)))
            time.sleep(0.001)
        wait(lambda: store.losses.failure)
        store.close()
    kept = len(open_run(tmp_path / "run").steps()["step"])
    assert 0 < store.losses.steps == 300 - kept
    texts = [str(w.message) for w in told]
    assert any("cannot be written at the moment" in t for t in texts)
    assert f"{store.losses.steps} steps and " in texts[-1] and "could not be written" in texts[-1]
    assert f"note: {store.losses.describe()} could not be written (" in render(open_run(tmp_path / "run"))
    Store(tmp_path / "run").close()  # a later writer knows it too
    assert open_run(tmp_path / "run").facts()["lost_steps"] == store.losses.steps
    assert os.listdir(tmp_path / "run") == ["run.sqlite"]


def test_nothing_is_lost_if_space_returns(tmp_path: Path) -> None:
    store = Store(tmp_path / "run", pause=0.005)
    with pytest.warns(RuntimeWarning, match="keeps trying"), full_disk():
        for step in range(200):
            store.steps(rows(step, step + 1))
            store.sample(step, np.zeros((50, 20)))
        wait(lambda: store.losses.failure)
    store.close()
    run = open_run(tmp_path / "run")
    assert len(run.steps()["step"]) == len(run.sample_steps()) == 200
    assert not store.losses.dropped and not run.standing().losses.dropped and run.standing().closed


def test_a_full_disk_holds_neither_the_training_nor_much_memory(tmp_path: Path) -> None:
    store = Store(tmp_path / "run", pause=0.005)
    with pytest.warns(RuntimeWarning), full_disk():
        started = time.monotonic()
        for step in range(3 * RECORDS):
            store.steps(rows(step, step + 1))
        assert time.monotonic() - started < 2 and len(store._backlog) < 1.1 * RECORDS
        wait(lambda: store.losses.failure)
        started = time.monotonic()
        store.close()
        assert time.monotonic() - started < 3
    assert store.losses.steps + len(open_run(tmp_path / "run").steps()["step"]) == 3 * RECORDS


def test_large_samples_wait_only_up_to_a_number_of_bytes() -> None:
    backlog = Backlog()
    for step in range(100):
        backlog.put("samples", (step, b"x" * 1_000_000))
        backlog.put("meta", ("looks", str(step)))
    assert len(backlog) == 65 and backlog.losses.dropped == 36
    assert ("meta", ("looks", "99")) in backlog.take()
    backlog.settle(backlog.take())
    assert not len(backlog)
    backlog.put("samples", (0, b"x" * 64_000_000))
    assert len(backlog) == 1


def test_what_a_deleted_folder_held_is_counted(tmp_path: Path) -> None:
    store = Store(tmp_path / "run", pause=0.005)
    store.steps(rows(0, 50))
    assert store.flush()
    shutil.rmtree(tmp_path / "run")
    with pytest.warns(RuntimeWarning, match=r"its folder is gone|80 steps"):
        store.steps(rows(50, 80))
        wait(lambda: store.losses.failure)
        store.close()
    assert store.losses.steps == 80 and not (tmp_path / "run").exists()


def test_a_folder_that_returns_is_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "run", pause=0.005)
    store.describe(name="net")
    store.steps(rows(0, 50))
    assert store.flush()
    with pytest.warns(RuntimeWarning, match="its folder is gone"):
        (tmp_path / "run").rename(tmp_path / "away")  # a volume is detached
        store.steps(rows(50, 60))
        wait(lambda: store.losses.failure)
    (tmp_path / "away").rename(tmp_path / "run")
    store.steps(rows(60, 70))
    assert store.flush() and not store.losses.dropped
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()
    store.steps(rows(70, 80))
    assert store.flush()
    with pytest.warns(RuntimeWarning, match="70 steps"):
        store.close()
    run = open_run(tmp_path / "run")
    assert run.steps()["step"].tolist() == list(range(70, 80))
    assert run.facts()["name"] == "net" and run.standing().losses.steps == 70


def test_a_warning_that_is_an_error_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "run", pause=0.005)
    shutil.rmtree(tmp_path / "run")
    store.steps(rows(0, 3))
    wait(lambda: store.losses.failure)
    store.close()
    assert "3 steps" in capsys.readouterr().err


def test_steps_between_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path, pause=0.005)
    store.steps([*rows(0, 5), *rows(8, 9), *rows(10, 12)])
    store.close()
    assert "note: 4 steps in between are not in the record: 5 to 7, 9" in render(open_run(tmp_path))


def test_a_run_copied_alone_or_to_a_folder_that_cannot_be_written_is_readable(tmp_path: Path) -> None:
    made = make_run(tmp_path / "made")
    assert os.listdir(made) == ["run.sqlite"]
    store = Store(tmp_path / "killed", pause=0.005)
    store.steps(rows(0, 30))
    assert store.flush()
    shutil.copytree(tmp_path / "killed", tmp_path / "copied")  # with its log, as after a kill
    shutil.copytree(tmp_path / "killed", tmp_path / "alone", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    store.close()
    code = (
        "import fcntl, os, sys; from unvanish.store import open_run\n"
        "open_run(sys.argv[1]).standing(); os.getuid() or os.setuid(65534)\n"
        "for run in map(open_run, sys.argv[1:]): print(len(run.steps()['step']), run.standing().closed)"
    )
    places = [tmp_path / name for name in ("made", "copied", "alone")]
    for place in places:
        (place / "run.sqlite-shm").unlink(missing_ok=True)
        for file in place.iterdir():
            file.chmod(0o444)
        place.chmod(0o555)
    for parent in [tmp_path, *list(tmp_path.parents)[:-2]]:
        parent.chmod(parent.stat().st_mode | 0o111)
    asked = subprocess.run([sys.executable, "-c", code, *map(str, places)], capture_output=True, text=True)
    assert asked.stdout.split() == ["30", "True", "30", "False", "0", "False"], asked.stderr
    for place in places:
        place.chmod(0o755)
    assert sorted(os.listdir(tmp_path / "alone")) == ["run.sqlite", "run.sqlite.lock"]


@pytest.mark.parametrize("name", ["per%cent", "ask?ed", "ha#sh", "spa ce", "ümlaut"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    assert len(open_run(make_run(tmp_path / name)).steps()["step"]) == 30
    assert os.listdir(tmp_path) == [name]


def test_two_writers_are_refused_and_a_dead_one_is_not(tmp_path: Path) -> None:
    first = Store(tmp_path)
    with pytest.raises(StoreError, match="this process already writes it; close that one first"):
        Store(tmp_path)
    assert "the run goes on: this process" in render(open_run(tmp_path))
    first.close()
    code = (
        "import sys, time\nfrom unvanish.store import Store\nStore(sys.argv[1])\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "ready\n"
    with pytest.raises(StoreError, match=f"process {other.pid} on .* writes it; give another folder"):
        Store(tmp_path)
    other.kill()
    other.wait()
    other.stdout.close()
    assert "the run was not closed" in render(open_run(tmp_path))
    Store(tmp_path).close()
    assert "not closed" not in render(open_run(tmp_path)) and os.listdir(tmp_path) == ["run.sqlite"]


def test_a_forked_child_neither_writes_nor_holds_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path, pause=0.005)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's own on forking with threads
        child = os.fork()
    if not child:
        store.steps(rows(50, 60))
        store.close()
        time.sleep(20)
        os._exit(0)
    store.steps(rows(0, 5))
    store.close()
    Store(tmp_path).close()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert open_run(tmp_path).steps()["step"].tolist() == list(range(5))


def test_the_program_may_change_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("run", pause=0.005)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    store.steps(rows(0, 5))
    store.close()
    assert len(open_run(tmp_path / "run").steps()["step"]) == 5


def test_rows_from_the_start_on_are_taken_back(tmp_path: Path) -> None:
    from unvanish.core.diagnosis import Finding

    store = Store(tmp_path, pause=0.005)
    store.steps(rows(0, 20))
    store.sample(12, np.zeros((1, 1)))
    store.finding(0, 3, 15, Finding("ACT003", "dead-units", "warning", "because"))
    store.finding(1, 12, 15, Finding("ACT001", "saturated", "warning", "because"))
    store.close()
    store = Store(tmp_path, start=10)
    assert store.first == 10
    store.steps(rows(10, 12))
    store.close()
    run = open_run(tmp_path)
    assert run.steps()["step"].tolist() == list(range(12)) and not len(run.sample_steps())
    assert [(e.first, e.last) for e in run.findings()] == [(3, 9)]


@pytest.mark.parametrize("text", ["", "[]", "{", json.dumps({"pid": "x" * 500}), "[" * 900])
def test_any_note_in_a_lock_is_read_calmly(tmp_path: Path, text: str) -> None:
    make_run(tmp_path)
    (tmp_path / "run.sqlite.lock").write_text(text)
    assert open_run(tmp_path).standing().writer == ""
    Store(tmp_path).close()


def test_a_change_that_a_killed_writer_left_half_made_is_taken_back(tmp_path: Path) -> None:
    code = (
        "import os, sqlite3, sys\nfile = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "file.execute('PRAGMA cache_size=1'); file.execute('BEGIN')\n"
        "file.executemany('INSERT INTO steps(step, finite) VALUES (?, 1)', [(i,) for i in range(99, 9999)])\n"
        "os.kill(os.getpid(), 9)"
    )
    make_run(tmp_path)
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.sqlite")], check=False)
    assert (tmp_path / "run.sqlite-journal").stat().st_size
    assert len(open_run(tmp_path).steps()["step"]) == 30
    assert sorted(os.listdir(tmp_path)) == ["run.sqlite", "run.sqlite-journal"]  # a reader changes nothing
    store = Store(tmp_path)
    assert store.first == 30
    store.close()


class Planted(RuntimeError):
    """A fault of ours."""


@pytest.mark.parametrize("name", ["_disconnect", "_write", "_finish", "_try", "_serve"])
def test_a_fault_in_the_writers_own_thread_is_said_once_and_loses_nothing_if_it_passes(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, times = getattr(Store, name), [0]

    def fail_once(store: Store, *args: object) -> object:
        times[0] += 1
        if times[0] == 1:
            raise Planted("it broke")
        return true(store, *args)

    monkeypatch.setattr(Store, name, fail_once)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        store = Store(tmp_path / "run", pause=0.005)
        store.steps(rows(0, 20))
        wait(lambda: not len(store._backlog))
        store.steps(rows(20, 30))
        store.close()
    assert len(told) == 1 and store.fault, told
    assert "failed inside itself (Planted: it broke, at unvanish/store/writer.py" in str(told[0].message)
    run = open_run(tmp_path / "run")
    assert len(run.steps()["step"]) == 30 and run.standing().closed and not store.losses.dropped
    Store(tmp_path / "run").close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["_serve", "_work", "_write", "_disconnect"])
def test_what_a_thread_that_stays_broken_cannot_write_is_counted(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Planted("it stays broken")

    monkeypatch.setattr(Store, name, fail)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        store = Store(tmp_path / "run", pause=0.005)
        for step in range(20):
            store.steps(rows(step, step + 1))
            time.sleep(0.001)
        began = time.monotonic()
        store.flush(0.2)
        with contextlib.suppress(Planted):  # the last one is broken here, too
            store.close()
        assert time.monotonic() - began < 3
    ours = [str(w.message) for w in told if str(w.message).startswith("unvanish")]
    assert len(ours) == 1 and "failed inside itself" in ours[0], ours
    if name != "_disconnect":
        assert store.losses.steps == 20 and "20 steps" in render(open_run(tmp_path / "run"))
