"""Data are looked up in, and cached below, a folder of the test's own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNVANISH_DATA", raising=False)
    monkeypatch.setenv("UNVANISH_CACHE", str(tmp_path / "cache"))
    return tmp_path
