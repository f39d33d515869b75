"""A folder is a registry: its modules, their pages, the settings of a function, suggestions."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from unvanish.core import registry, shown
from unvanish.core.shown import Shown


def test_the_modules_of_a_folder_are_those_without_an_underscore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_registry_of_a_test"
    package.mkdir()
    for name in ("__init__", "_hidden", "second", "first"):
        (package / f"{name}.py").write_text(f'"""The page of {name}."""\n')
    (package / "notes.txt").write_text("no module")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = dict(registry.modules(package.name, [str(package)]))
    assert sorted(found) == ["first", "second"]
    assert found["first"].__name__ == f"{package.name}.first"
    assert registry.page(found["second"]) == "The page of second."
    assert f"{package.name}._hidden" not in sys.modules


def test_a_page_has_no_indentation_and_may_be_empty() -> None:
    module = ModuleType("m", "First.\n\n    Second.\n        Third.\n    ")
    assert registry.page(module) == "First.\n\nSecond.\n    Third."
    assert registry.page(ModuleType("m")) == ""


def test_settings_are_the_keyword_only_arguments() -> None:
    def check(trace: object, other: int = 1, *, limit: float = 3.0, name: str = "x") -> None: ...

    assert registry.settings(check) == {"limit": 3.0, "name": "x"}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("rectifyer", " (did you mean 'rectifier'?)"),
        ("NODE", " (did you mean 'Node'?)"),
        ("zzzz", ""),
        ("abc", " (did you mean 'abcdef'?)"),  # a ratio of 2 * 3 / 9: just near enough
        ("abcx", ""),  # 2 * 3 / 10
        ("as", " (did you mean 'as1' or 'as2'?)"),  # two are as near
    ],
)
def test_the_nearest_word_is_suggested(wrong: str, text: str) -> None:
    assert registry.suggest(wrong, ["Node", "rectifier", "abcdef", "as2", "as1"]) == text


# -- nouns that show themselves


class Noun(Shown):
    """A noun."""


class Calls:
    """Renderers that say how they were called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def render(self, noun: object, suffix: str) -> str:
        return f"{self.name} renders {type(noun).__name__} as {suffix}"

    def fragment(self, noun: object) -> str:
        return f"<p>{self.name}</p>"

    def save(self, noun: object, path: Path) -> Path:
        assert isinstance(path, Path)
        return path.with_suffix(".saved")


def test_the_renderers_offered_last_show_a_noun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "_offered", [])
    shown.offer(lambda: Calls("first"))
    shown.offer(lambda: Calls("last"))
    noun = Noun()
    assert str(noun) == "last renders Noun as .txt"
    assert noun._repr_html_() == "<p>last</p>"
    assert noun.save("a.txt") == Path("a.saved")
