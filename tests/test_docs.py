"""The pages name what exists: links, files and commands; the README stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
    ROOT / "examples" / "README.md",
    ROOT / "changelog.d" / "README.md",
]
LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)|<img src=\"([^\"]+)\"")
FOLDERS = "src tests benchmarks docs examples core theory rules store probes reports lab surgery cures clinic"
FILE = re.compile(rf"`((?:{FOLDERS.replace(' ', '|')}|train|cli|integrations)/[\w./]+\.(?:py|md|yaml|png))`")
PLACEHOLDERS = re.compile(r"abc123|what_|idea|name|kind\.|task\.|verb|library|act001_saturated")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link or image for link, _, image in LINK.findall(text)]
    assert [link for link in links if not (page.parent / link).exists()] == []
    files = [name for name in FILE.findall(text) if not PLACEHOLDERS.search(name)]
    places = (ROOT, ROOT / "src" / "unvanish")
    assert [name for name in files if not any((place / name).exists() for place in places)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_benchmarks_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"(?:\./dev bench|python -m benchmarks\.?) ?([a-z_]+)", page.read_text(encoding="utf-8")
    )
    known = ("name", *(path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")))
    unknown = [n for n in named if n not in known and not (ROOT / "benchmarks" / f"{n}.py").exists()]
    assert unknown == []


def test_the_folders_of_the_tree_exist_and_none_is_missing() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = text[text.index("src/unvanish/\n") : text.index("tests/             mirrors")]
    named = set(re.findall(r"^(?:  .  |     |  roof  |        )([a-z]+)/ ", tree, re.MULTILINE))
    package = ROOT / "src" / "unvanish"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    assert named & rooms == rooms
    for line in re.findall(r"^ {7}([a-z_/., ]+\.py)\b", tree, re.MULTILINE):
        for name in line.split(", "):
            assert list(package.rglob(name)), f"ARCHITECTURE.md names {name}, which does not exist"


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 150
