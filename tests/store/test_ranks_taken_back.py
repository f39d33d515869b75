"""A run of several ranks that is resumed at a step, locked, and read when somebody damaged a file of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unvanish.clinic.watch import watch
from unvanish.clinic.watch.looks import Look
from unvanish.core.diagnosis import Finding
from unvanish.core.trace import Site
from unvanish.reports.run.text import render
from unvanish.store import Store, StoreError, find_last_step, open_run
from unvanish.store.backlog import Losses
from unvanish.store.schema import FILES, LOCK, name_file


def write(folder: Path, ranks: int, steps: int) -> None:
    for rank in range(ranks):
        store = Store(folder, name=name_file(rank), pause=0.005)
        store.describe(rank=rank, sessions=[[0, ranks]])
        store.steps({"step": s, "finite": 1, "loss": 1.0} for s in range(steps))
        store.close()


def train(folder: Path, steps: int, **options: Any) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, run=folder, on_finding="silent", **options) as seen:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            assert seen.flush()


def test_a_resume_takes_the_rows_of_every_rank_back(tmp_path: Path) -> None:
    write(tmp_path, 3, 10)
    train(tmp_path, 2, start=6)
    run = open_run(tmp_path)
    assert run.steps()["step"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert run.facts()["sessions"] == [[0, 3], [6, 1]]
    assert run.lacking() == {} and run.standing().closed
    train(tmp_path, 1, start=0)  # from the beginning
    run = open_run(tmp_path)
    assert run.steps()["step"].tolist() == [0] and run.facts()["sessions"] == [[0, 1]]
    assert run.lacking() == {}


def test_a_run_goes_on_after_the_last_step_of_any_rank(tmp_path: Path) -> None:
    write(tmp_path, 2, 4)
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as file, file:
        file.execute("DELETE FROM steps WHERE step > 1")
    train(tmp_path, 1)
    run = open_run(tmp_path)
    assert run.steps()["step"].tolist() == [0, 1, 2, 3, 4] and run.lacking() == {0: [2, 3]}


def test_each_rank_has_its_own_lock(tmp_path: Path) -> None:
    first, second = (Store(tmp_path, name=name_file(rank)) for rank in range(2))
    assert {LOCK.format(name_file(rank)) for rank in range(2)} <= set(os.listdir(tmp_path))
    with pytest.raises(StoreError, match="this process already writes it"):
        Store(tmp_path, name=name_file(1))
    assert open_run(tmp_path).standing().writer and not open_run(tmp_path).standing().closed
    first.close()
    second.close()
    assert sorted(os.listdir(tmp_path)) == ["run.1.sqlite", "run.sqlite"]
    assert open_run(tmp_path).standing().closed
    assert {p.name for pattern in FILES for p in tmp_path.glob(pattern)} == {"run.1.sqlite", "run.sqlite"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sessions", "[[0, 100000000]]"), ("sessions", "[3]"), ("sessions", "{}"), ("sessions", "[[0]]"),
        ("shards", '"x"'), ("layout", "1"), ("relayed", '["x"]'), ("notes", "[1]"),
    ],
)  # fmt: skip
def test_a_damaged_fact_of_a_rank_is_one_error(tmp_path: Path, key: str, value: str) -> None:
    write(tmp_path, 2, 3)
    with closing(sqlite3.connect(tmp_path / "run.1.sqlite")) as file, file:
        file.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
    run = open_run(tmp_path)
    for read in (run.facts, run.steps, run.lacking, run.standing):
        with pytest.raises(StoreError, match="cannot read"):
            read()


def test_files_of_other_names_are_no_ranks(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    for name in ("run.0.sqlite", "run.01.sqlite", "run.x.sqlite", "relay.1234567.sqlite"):
        (tmp_path / name).write_bytes(b"")
    assert open_run(tmp_path).steps()["step"].tolist() == [0, 1]


def test_a_view_in_the_file_of_a_rank_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 2, 2)
    with closing(sqlite3.connect(tmp_path / "run.1.sqlite")) as file:
        file.execute("CREATE VIEW mine AS SELECT 1")
    with pytest.raises(StoreError, match="a view, which no run has"):
        open_run(tmp_path).steps()


def test_many_ranks_without_files_are_read_at_once(tmp_path: Path) -> None:
    write(tmp_path, 1, 1000)
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as file, file:
        file.execute("UPDATE meta SET value = '[[0, 4096], [500, 2048]]' WHERE key = 'sessions'")
    found = open_run(tmp_path).lacking()
    assert len(found) == 4095 and found[4095] == list(range(500)) and found[7] == list(range(1000))


def test_the_record_is_closed_if_a_watch_does_not_come_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = Look.remove

    def fail(look: Look) -> None:
        remove(look)  # nothing may stay for other tests
        raise RuntimeError("it stays")

    monkeypatch.setattr(Look, "remove", fail)
    with pytest.warns(RuntimeWarning, match="it stays"):
        train(tmp_path, 3)
    assert open_run(tmp_path).standing().closed and len(open_run(tmp_path).steps()["step"]) == 3


def write_part(folder: Path, name: str, first: int, last: int, loss: float, **facts: Any) -> None:
    store = Store(folder, name=name, pause=0.005)
    store.describe(rank=1, layout="a", shards=1, statistics=["norm_log"], **facts)
    store.sites([Site("0", "Linear", "module")], ["norm_log"])
    store.steps({"step": s, "finite": 1, "loss": loss} for s in range(first, last))
    for step in range(first, last, 2):
        store.sample(step, np.full((1, 1), loss))
        store.profile(step, "rnn", np.full(3, loss))
    finding = Finding("OPT001", "spike", "warning", f"of {name}", ("0",))
    store.finding(0, first, last - 1, finding)
    store.close()


def find_loss(run: Any, step: int) -> float:
    """The loss of the second rank at a step that the first has not."""
    steps = run.steps()
    return float(steps["loss"][steps["step"].tolist().index(step)])


@pytest.mark.parametrize("own_first", [True, False])
def test_what_a_rank_wrote_and_what_came_from_it_are_one_record(tmp_path: Path, own_first: bool) -> None:
    write(tmp_path, 1, 2)
    names = ["run.1.sqlite", "relay.1.sqlite"]
    early, late = names if own_first else reversed(names)
    write_part(tmp_path, early, 2, 10, 1.0, sessions=[[2, 2]])
    write_part(tmp_path, late, 6, 12, 2.0, sessions=[[6, 2]])
    run = open_run(tmp_path)
    assert run.steps()["step"].tolist() == list(range(12))  # each once
    assert [find_loss(run, s) for s in (2, 5, 6, 9, 11)] == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert run.lacking() == {0: list(range(2, 12))}
    assert run.sample_steps().tolist() == [2, 4, 6, 8, 10]
    np.testing.assert_array_equal(run.trace().values[:, 0, 0], [1, 1, 2, 2, 2])
    assert [float(s[0]) for s in run.profiles()["rnn"][1]] == [1, 1, 2, 2, 2]
    assert [(e.first, e.last) for e in run.findings()] == [(2, 11)]
    assert run.standing().closed and find_last_step(tmp_path) == 11


def test_the_same_rows_in_both_files_are_one_and_losses_of_both_count(tmp_path: Path) -> None:
    write(tmp_path, 1, 4)
    for name in ("run.1.sqlite", "relay.1.sqlite"):
        write_part(tmp_path, name, 0, 4, 3.0, sessions=[[0, 2]])
    relayed = Store(tmp_path, name="relay.1.sqlite")
    relayed.lose(Losses(3, 2))
    relayed.close()
    run = open_run(tmp_path)
    assert run.steps()["loss"].tolist() == [2.0] * 4
    assert len(run.findings()) == 1 and run.standing().losses.steps == 2
    assert "2 steps and 1 other record could not be written" in render(run)
