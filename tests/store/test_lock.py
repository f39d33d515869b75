"""A folder's lock ends with its object, whatever failed on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from unvanish.store.lock import FolderLock, Taken


def test_a_lock_that_nobody_holds_any_more_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FolderLock(path)
    with pytest.raises(Taken):
        FolderLock(path)
    del lock
    FolderLock(path).release()


def test_a_release_that_fails_may_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    lock = FolderLock(path)

    def fail(self: FolderLock) -> bool:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(FolderLock, "holds", fail)
        with pytest.raises(ZeroDivisionError):
            lock.release()
    FolderLock(path).release()
    lock.release()
    lock.note(more=1)
    assert not lock.holds()
