"""The wheel holds the package, all of it and nothing else, and says what it needs."""

from __future__ import annotations

import re
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
wheel_builder = pytest.importorskip("hatchling.builders.wheel", reason="the build's own tool")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree, built by hatchling alone."""
    folder = tmp_path_factory.mktemp("wheel")
    (file,) = wheel_builder.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(file) as archive:
        yield Path(file), archive


def source_files():
    """Everything that belongs to the package."""
    return {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "unvanish").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def split_names(archive):
    """(files of the package, files about it)."""
    names = set(archive.namelist())
    about = {name for name in names if re.match(r"unvanish-[^/]+\.dist-info/", name)}
    return names - about, {name.partition("/")[2] for name in about}


def test_it_holds_the_whole_package_and_nothing_else(wheel):
    package, about = split_names(wheel[1])
    assert package == source_files()
    assert about == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_what_is_no_python_is_in_it(wheel):
    package, _ = split_names(wheel[1])
    kinds = {kind: [name for name in package if name.endswith(kind)] for kind in (".css", ".js", ".yaml")}
    assert "unvanish/py.typed" in package
    assert len(kinds[".css"]) >= 3 and kinds[".js"]
    assert {"unvanish/lab/models/zoo/resnet.yaml", "unvanish/lab/data/sets/digits.yaml"} <= package
    assert not [
        name for name in package if name.endswith((".pyc", ".pt", ".safetensors", ".sqlite", ".orig"))
    ]


def test_it_is_small(wheel):
    file, archive = wheel
    assert file.stat().st_size < 2_500_000
    assert max(archive.infolist(), key=lambda entry: entry.file_size).file_size < 200_000


def test_it_says_what_it_needs(wheel):
    _, archive = wheel
    (name,) = [n for n in archive.namelist() if n.endswith("/METADATA")]
    about = HeaderParser().parsestr(archive.read(name).decode())
    needed = [line for line in about.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(re.split(r"[<>=~! ]", line)[0] for line in needed) == [
        "numpy",
        "pyyaml",
        "rich",
        "torch",
        "typer",
    ]
    assert about["Requires-Python"] == ">=3.11" and about["License-Expression"] == "Apache-2.0"
    assert {"train", "report", "all"} <= set(about.get_all("Provides-Extra"))


def test_its_commands_and_plugins_are_there(wheel):
    _, archive = wheel
    (name,) = [n for n in archive.namelist() if n.endswith("/entry_points.txt")]
    text = archive.read(name).decode()
    assert "unvanish = unvanish.cli:main" in text and "[pytest11]" in text
    for place in re.findall(r"= ([\w.]+)", text):
        module = place.replace(".", "/")
        assert {f"{module}.py", f"{module}/__init__.py"} & set(archive.namelist()), place


def test_nothing_in_it_names_a_place_of_the_builder(wheel):
    _, archive = wheel
    here = (str(ROOT), sys.prefix)
    for name in archive.namelist():
        text = archive.read(name).decode("utf-8", errors="replace")
        assert not any(place in text for place in here if len(place) > 5), name
