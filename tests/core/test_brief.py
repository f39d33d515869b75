"""Every public noun shows itself in one screen, however much it holds."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unvanish
from unvanish.core.brief import WIDTH, Brief
from unvanish.core.diagnosis import Evidence, Finding, Remedy
from unvanish.core.trace import STATISTICS, Site, Trace

LINES, LETTERS = 24, 2_000
LONG = "a name \x1b[31m of many letters\n" * 200


def list_nouns() -> list[type[Brief]]:
    """Every dataclass of the floors that a user meets, which shows itself."""
    found: set[type[Brief]] = set()
    for floor in ("core", "store", "surgery", "clinic"):
        package = importlib.import_module(f"unvanish.{floor}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if issubclass(kind, Brief) and dataclasses.is_dataclass(kind):
                    found.add(kind)
    return sorted(found, key=lambda kind: kind.__name__)


def fill(kind: type[Brief]) -> Brief:
    """One of it, with far too much in every field."""
    noun = object.__new__(kind)
    finding = Finding("X" * 500, LONG, "error", LONG, (LONG,) * 300, (Evidence(LONG, LONG),) * 300)
    crowd = (finding,) * 500
    held: list[Any] = [LONG, crowd, {LONG: crowd}, Path(LONG), np.zeros((50, 60)), [crowd] * 9, object()]
    for index, field in enumerate(dataclasses.fields(kind)):  # type: ignore[arg-type]
        object.__setattr__(noun, field.name, held[index % len(held)])
    return noun


@pytest.mark.parametrize("kind", list_nouns(), ids=lambda kind: kind.__name__)
def test_a_noun_fits_a_screen(kind: type[Brief]) -> None:
    shown = repr(fill(kind))
    lines = shown.splitlines()
    assert len(lines) <= LINES and max(map(len, lines)) <= WIDTH and len(shown) <= LETTERS
    assert shown.startswith(f"{kind.__name__}(") and shown.isascii()
    assert "\x1b" not in shown


def test_what_users_get_by_name_are_such_nouns() -> None:
    nouns = set(list_nouns())
    for name in ("Cured", "Diagnosis", "Finding", "Prescription", "Proof", "Remedy", "Site", "Trace"):
        assert getattr(unvanish, name) in nouns
    names = {kind.__name__ for kind in nouns}
    assert {"Run", "RunPair", "Event", "Ledger", "Row", "Receipt", "Change", "Sight", "Evidence"} <= names


def test_no_dataclass_of_the_public_nouns_prints_itself_otherwise() -> None:
    """A field that holds another dataclass would print all of it."""
    for kind in list_nouns():
        assert kind.__repr__ is Brief.__repr__, kind


def test_a_small_noun_is_one_line_that_says_what_it_is() -> None:
    assert repr(Remedy("freeze", ("a",), "why")) == "Remedy(cure='freeze', targets=('a',), why='why')"
    assert repr(Site("a", "linear")) == "Site(path='a', kind='linear')"
    assert repr(Evidence("x", float("nan"))) == "Evidence(name='x', value=nan)"


def test_many_things_are_counted() -> None:
    finding = Finding("ACT002", "contracting", "error", "cause", tuple(f"layers.{i}" for i in range(30)))
    assert "sites=('layers.0', 'layers.1', 'layers.2', ... 27 more)" in repr(finding)
    trace = Trace((Site("a", "b"),) * 9, np.zeros((1, 9, len(STATISTICS))))
    assert f"values=<ndarray of shape (1, 9, {len(STATISTICS)})>" in repr(trace)


def test_a_list_that_holds_itself_ends() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert len(repr(Remedy("a", (), "", parameters={"x": endless}))) < LETTERS
