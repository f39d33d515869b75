"""What ranks tell each other: what does not come to the first rank is counted, and a fault is said once."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from unvanish.clinic.rounds import choose_rules
from unvanish.clinic.watch import exchange as module
from unvanish.clinic.watch.concert import Concert
from unvanish.clinic.watch.exchange import Exchange
from unvanish.clinic.watch.line import Line
from unvanish.clinic.watch.ranks import Company
from unvanish.clinic.watch.verdicts import Verdicts
from unvanish.core.diagnosis import Finding
from unvanish.reports.run.text import render
from unvanish.store import Store, open_run
from unvanish.store.joining import Holding

STEP = (0.0, 1.0, 0.0, None, 1, 0.0, 0.1, 0)  # a row of a step without its number


class Deaf:
    """A store that does not answer any more."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionResetError("gone")


def pair(folder: Path, store: Any) -> list[Exchange]:
    return [
        Exchange(Line(store, "w/"), Holding(rank, 2, "a"), folder / str(rank), shards=False)
        for rank in (0, 1)
    ]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
    first = Store(tmp_path / "0", pause=0.005)
    first.describe(rank=0, layout="a", shards=1, sessions=[[0, 2]])
    first.close()
    return tmp_path


def test_rows_that_found_no_room_are_counted_in_the_first_ranks_run(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 10)
    store = torch.distributed.HashStore()
    second = Exchange(Line(store, "w/"), Holding(1, 2, "a"), folders / "1", shards=False)
    for step in range(25):
        second.put("steps", (step, *STEP))
    first = Exchange(Line(store, "w/"), Holding(0, 2, "a"), folders / "0", shards=False)
    end = time.monotonic() + 10
    while 1 not in first.relayed and time.monotonic() < end:
        time.sleep(0.01)
    second.close()
    first.close()
    run = open_run(folders / "0")
    assert second.losses.steps == 15 == run.standing().losses.steps
    assert "15 steps could not be written" in render(run)
    relayed = next(f for f in run.files if f.rank == 1)  # type: ignore[attr-defined]
    assert len(relayed.run.steps()["step"]) == 10 and relayed.holding() == Holding(1, 2, "a")


def test_a_store_that_is_gone_is_a_note_and_no_warning(folders: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = Exchange(Line(Deaf(), "w/"), Holding(1, 2, "a"), folders / "1", shards=False)
        began = time.monotonic()
        alone.close()
    assert time.monotonic() - began < 2 and "ConnectionResetError: gone" in alone.failure


@pytest.mark.parametrize("severity", ["note", "error"])
def test_what_reached_nobody_is_told_once_and_not_by_who_has_told_it(folders: Path, severity: str) -> None:
    def find(code: str, loud: str) -> Finding:
        return Finding(code, "a-name", loud, "a cause")  # type: ignore[arg-type]

    store = torch.distributed.HashStore()
    alone = Exchange(Line(store, "w/"), Holding(1, 2, "a"), folders / "1", shards=False)
    concert, verdicts = (
        Concert(Company(1, exchange=alone), raising=False),
        Verdicts(choose_rules(None, None, None), 0),
    )
    assert verdicts.report(find("NUM001", severity), 0, alone)
    assert concert.tell(find("NUM001", severity), 0, 0).told  # nobody else is there yet
    for step in (1, 2):
        verdicts.report(find("NUM001", "error"), step, alone)
        verdicts.report(find("OPT001", "error"), step, alone)
    alone.failure = "the line broke"
    told = [(news.finding.code, news.step) for news in concert.close(verdicts, None)]
    assert told == [*([("NUM001", 0)] if severity == "note" else []), ("OPT001", 1)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["_talk", "_lead", "_clear", "_work", "_serve", "_take"])
def test_a_fault_in_the_thread_is_said_once_and_nobody_waits(
    folders: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, times = getattr(Exchange, name), [0]

    def fail_once(one: Exchange, *args: Any) -> Any:
        times[0] += 1
        if times[0] == 1:
            raise ZeroDivisionError("planted")
        return true(one, *args)

    monkeypatch.setattr(Exchange, name, fail_once)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        both = pair(folders, torch.distributed.HashStore())
        for step in range(5):
            both[1].put("steps", (step, *STEP))
            time.sleep(0.02)
        began = time.monotonic()
        for one in reversed(both):
            one.close()
    assert time.monotonic() - began < 3
    ours = [str(w.message) for w in told if str(w.message).startswith("unvanish")]
    assert len(ours) == 1 and "failed inside itself" in ours[0], ours
    assert any(one.failure for one in both)
    Store(folders / "0", name="relay.1.sqlite").close()  # nobody holds it
