"""A fault at any line of the opening of a watch: its record's thread ends, and its folder is free again."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fuzz.planting import find_sites, plant
from torch import nn

import unvanish
from unvanish.store import Store, StoreError
from unvanish.store.opened import close_since, list_opened

FILES = ("clinic/watch/ranks.py", "clinic/watch/opening.py", "store/lock.py", "clinic/watch/chronicle.py")


def open_and_close(folder: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    unvanish.watch(model, optimizer, run=folder, on_finding="silent").close()


def writers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("unvanish")]


@pytest.mark.parametrize("file", FILES)
def test_a_fault_at_any_line_leaves_no_thread_and_no_lock(tmp_path: Path, file: str) -> None:
    open_and_close(tmp_path / "first")
    sites = find_sites(lambda: open_and_close(tmp_path / "second"))
    chosen = sorted(site for site in sites if site[0] == file)
    assert len(chosen) > 8
    for i, site in enumerate(chosen):
        folder = tmp_path / f"{i}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plant(site, 1, lambda folder=folder: open_and_close(folder))  # type: ignore[misc]
        for thread in writers():
            thread.join(1)
        assert not writers(), site
        Store(folder).close()


def test_only_what_this_thread_has_opened_since_is_closed(tmp_path: Path) -> None:
    first = Store(tmp_path / "first")
    known, others = list_opened(), []

    def open_one() -> None:
        others.append(Store(tmp_path / "other"))

    thread = threading.Thread(target=open_one)
    thread.start()
    thread.join()
    second = Store(tmp_path / "second")
    close_since(known)
    with pytest.raises(StoreError, match="already writes it"):
        Store(tmp_path / "first")
    with pytest.raises(StoreError, match="already writes it"):
        Store(tmp_path / "other")
    Store(tmp_path / "second").close()
    for store in (first, second, *others):
        store.close()


def test_a_watch_that_is_refused_closes_no_other(tmp_path: Path) -> None:
    model: Any = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, run=tmp_path, on_finding="silent") as watching:
        with pytest.raises(StoreError):
            unvanish.watch(model, optimizer, run=tmp_path)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert watching.store is not None and not watching.store.losses.dropped
    assert unvanish.open_run(tmp_path).standing().closed
