"""Files are replaced whole or not at all, and only regular ones."""

from __future__ import annotations

import ast
import os
import socket
import stat
from pathlib import Path

import pytest

from unvanish.store.files import read_text, write_bytes, write_text, write_whole

SOURCE = Path(__file__).parents[2] / "src" / "unvanish"


def make_pipe(path):
    os.mkfifo(path)


def make_folder(path):
    path.mkdir()


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(path))


def make_link(path):
    other = path.parent / "elsewhere" / "kept.txt"
    other.parent.mkdir()
    other.write_text("kept")
    path.symlink_to(other)


def make_dangling_link(path):
    path.symlink_to(path.parent / "nothing")


OTHERS = [make_pipe, make_folder, make_socket, make_link, make_dangling_link]


@pytest.mark.parametrize("make", OTHERS, ids=lambda make: make.__name__)
def test_only_regular_files_are_replaced(tmp_path, make, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    target = Path("report.html")
    make(target.absolute() if make in (make_link, make_dangling_link) else target)
    before, there = os.lstat(target), sorted(os.listdir())
    with pytest.raises(OSError, match=r"cannot write the report report.html: it is a .*only regular files"):
        write_text(target, "text")
    assert stat.S_IFMT(os.lstat(target).st_mode) == stat.S_IFMT(before.st_mode)
    assert os.lstat(target).st_ino == before.st_ino and sorted(os.listdir()) == there
    if make is make_link:
        assert target.read_text() == "kept"


def test_a_device_is_not_replaced():
    with pytest.raises(OSError, match="it is a device, and only regular files are replaced"):
        write_text(Path("/dev/null"), "text")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(error), write_whole(target) as partial:
        partial.write_text("half")
        raise error("stop")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["table.csv"]


def test_the_new_name_is_not_known_before_and_its_ending_is_the_targets(tmp_path):
    names = []
    for _ in range(2):
        with write_whole(tmp_path / "net.onnx") as partial:
            names.append(partial.name)
            assert partial.parent == tmp_path and partial.suffix == ".onnx"
    assert names[0] != names[1] and os.listdir(tmp_path) == ["net.onnx"]


def test_permissions_are_those_of_the_file_before_else_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    assert write_bytes(tmp_path / "new", b"x").stat().st_mode == usual
    private = tmp_path / "private"
    private.touch(0o600)
    assert stat.S_IMODE(write_bytes(private, b"x").stat().st_mode) == 0o600


def test_texts_are_read_up_to_a_size_and_from_regular_files_only(tmp_path):
    file = tmp_path / "net.yaml"
    file.write_text("a" * 11)
    with pytest.raises(OSError, match=r"more than the 1e-05 MB that are read"):
        read_text(file, 10)
    assert read_text(file, 11) == "a" * 11
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, why in (("pipe.yaml", "no regular file"), ("none.yaml", "no such file")):
        with pytest.raises(OSError, match=why):
            read_text(tmp_path / name)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match="not text in UTF-8"):
        read_text(file)


# -- nothing else in the package writes a file

WRITERS = {
    "store/files.py": "the one place",
    "store/export.py": "a table, into the new file that `write_whole` gives",
    "lab/data/places.py": "an archive, into a new folder of the cache",
    "lab/data/download.py": "a download, which grows where it is resumed",
}
MODES = set("wax+")


def writes(tree):
    """The lines of a module that open a file for writing, or write one by themselves."""
    inside = {
        id(call)
        for block in ast.walk(tree)
        if isinstance(block, ast.With)
        and any("write_whole(" in ast.unparse(item.context_expr) for item in block.items)
        for call in ast.walk(block)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or id(node) in inside:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        modes = [a for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        opened = name == "open" and any(isinstance(a.value, str) and MODES & set(a.value) for a in modes)
        whole = name in ("write_text", "write_bytes", "save_file", "savez") and isinstance(
            node.func, ast.Attribute
        )
        if opened or whole or ast.unparse(node.func) in ("torch.save", "np.save", "os.open"):
            yield node.lineno, ast.unparse(node)


def test_every_file_is_written_in_one_place():
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        name = file.relative_to(SOURCE).as_posix()
        if name not in WRITERS:
            found += [f"{name}:{line}: {text}" for line, text in writes(ast.parse(file.read_text()))]
    allowed = ["np.save(buffer"]  # into memory
    assert [f for f in found if not any(a in f for a in allowed)] == []
