"""Pictures, archives, gzip files, label files and generated sets are measured before they are expanded."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unvanish.lab.data import DataError, open_data
from unvanish.lab.data.labels import MOST, Form, read_labels
from unvanish.lab.data.limits import check_encoding, find_below, open_picture, unzip
from unvanish.lab.data.places import unpack


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNVANISH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UNVANISH_DATA", raising=False)


def chunk(kind, content):
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png(width, height):
    """A PNG that says it has this size."""
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(9000, 9000), (100_000, 1000), (0, 5), (2**31 - 1, 2**31 - 1)])
def test_a_picture_that_is_larger_than_it_looks_is_refused(size):
    Path("p.png").write_bytes(png(*size))
    with pytest.raises(OSError), open_picture("p.png") as image:
        image.load()


def test_a_picture_that_calls_a_program_is_none():
    Path("p.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(OSError), open_picture("p.png"):
        pass


def test_whatever_a_decoder_raises_is_a_broken_picture():
    with pytest.raises(OSError, match="KeyError: 'odd'"), open_picture(_picture()):
        raise KeyError("odd")


def _picture():
    made = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(made, "PNG")
    return made


def test_a_gzip_bomb_is_not_unpacked():
    Path("x.gz").write_bytes(gzip.compress(bytes(120_000_000), 1))
    with pytest.raises(OSError, match="unpack to more than"):
        unzip(Path("x.gz"))
    Path("y.gz").write_bytes(gzip.compress(b"text"))
    assert unzip(Path("y.gz")) == b"text"


def test_an_archive_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", bytes(150_000_000))
    with pytest.raises(DataError, match="unpack to far more"):
        unpack(Path("a.zip"))
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "a\x00b", "x" * 300])
def test_a_member_that_leads_elsewhere_is_not_written(tmp_path, name):
    with tarfile.open("a.tar", "w") as made:
        info = tarfile.TarInfo(name)
        info.size = 4
        made.addfile(info, io.BytesIO(b"evil"))
    try:
        unpack(Path("a.tar"))
    except DataError as error:
        assert "\n" not in str(error)
    assert {p.name for p in tmp_path.iterdir()} <= {"a.tar", "cache"} and not Path("/tmp/evil").exists()


def test_links_and_devices_of_an_archive_are_left_out():
    with tarfile.open("a.tar", "w") as made:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"odd{kind.decode()}")
            info.type, info.linkname = kind, "/etc/passwd"
            made.addfile(info)
        made.addfile(tarfile.TarInfo("good"))
    assert [p.name for p in unpack(Path("a.tar")).rglob("*")] == ["good"]


@pytest.mark.parametrize(
    ("text", "sort"),
    [
        ("0 0.5 0.5 0.1 " + "9" * 100_000, "not numbers"),
        ("0 0.5 0.5 0.1 1e999", "not numbers"),
        ("\n".join(f"0 0.5 0.5 0.1 0.{i:06d}1" for i in range(MOST + 9)), "too many labels"),
        ("0 " * 9_000_000, "broken label file"),
    ],
    ids=["long", "endless", "many", "large"],
)
def test_a_label_file_is_bounded(text, sort):
    Path("x.txt").write_text(text)
    found, problems = read_labels(Path("x.txt"), Form(("one",)))
    assert sort in {problem.sort for problem in problems} and len(found.classes) <= MOST


@pytest.mark.parametrize(
    "name", ["idna", "punycode", "zip", "base64", "rot13", "nope", "unicode_escape", "\x00"]
)
def test_an_encoding_is_one_of_texts(name):
    with pytest.raises(DataError, match="there is no encoding"):
        check_encoding(name)
    assert check_encoding("cp1252") == "cp1252" and check_encoding("") == ""


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "adding", "length": 10_000_000, "val_samples": 10_000_000}, "GiB"),
        ({"kind": "copying", "pause": 10_000_000, "val_samples": 9_999_999}, "GiB"),
        ({"kind": "shapes", "samples": 100_000, "size": 100_000}, "GiB"),
        ({"kind": "shapes", "samples": 9_000_000}, "at most 200,000 samples"),
        ({"kind": "adding", "length": 10**15}, "must lie between"),
        ({"kind": "digits", "nc": 10**9}, "nc must be the number of classes"),
        ({"kind": "folder", "path": "/etc", "download": "http://127.0.0.1:9/x"}, "outside of"),
        ({"kind": "folder", "path": "../up", "download": "http://127.0.0.1:9/x"}, "outside of"),
        ({"kind": "text", "train": "a\x00b"}, "none of"),
    ],
)
def test_a_data_yaml_does_not_take_the_machine(given, told):
    with pytest.raises(DataError, match=told):
        open_data(given)


def test_names_in_an_archive_are_no_patterns(tmp_path):
    (tmp_path / "a" / "train").mkdir(parents=True)
    assert [p.name for p in find_below(tmp_path, "a/train")] == ["train"]
    for pattern in ("**", "*", "../a", "/etc", "", "t*"):
        assert list(find_below(tmp_path, pattern)) == []
