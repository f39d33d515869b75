"""Downloads against a server of the test's own: resumed, checked, told, and never half there."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from unvanish.lab.data import DataError, open_data
from unvanish.lab.data.download import fetch
from unvanish.lab.data.fields import Fetch

CONTENT = bytes(range(256)) * 4000
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        content = server.content
        start = 0
        if server.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = server.break_at.pop(0) if server.break_at else None
        self.wfile.write(content[start:stop])  # shorter than said: the connection breaks off

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.asked, made.content, made.ranges, made.break_at = [], CONTENT, True, []
        made.url = f"http://127.0.0.1:{made.server_port}/some/data.bin"
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_file_is_fetched_checked_and_told(server, tmp_path, capsys):
    place = fetch(Fetch((server.url,), "data.bin", SHA), tmp_path / "new")
    assert place.read_bytes() == CONTENT and [p.name for p in place.parent.iterdir()] == ["data.bin"]
    assert "downloading" in capsys.readouterr().err


@pytest.mark.parametrize("ranges", [True, False])
def test_what_is_there_is_not_asked_for_again(server, tmp_path, ranges, capsys):
    server.ranges = ranges
    (tmp_path / "data.bin.partial").write_bytes(CONTENT[:1000])
    assert fetch(Fetch((server.url,), "data.bin", SHA), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"] and ("resuming" in capsys.readouterr().err) is ranges


def test_a_broken_connection_is_resumed(server, tmp_path):
    server.break_at = [5000, 300_000]
    assert fetch(Fetch((server.url,), "data.bin", SHA), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=5000-", "bytes=300000-"]


def test_a_complete_partial_file_is_only_checked(server, tmp_path):
    (tmp_path / "data.bin.partial").write_bytes(CONTENT)
    assert fetch(Fetch((server.url,), "data.bin", SHA), tmp_path).read_bytes() == CONTENT


def test_a_wrong_beginning_is_found_out_and_fetched_anew(server, tmp_path):
    (tmp_path / "data.bin.partial").write_bytes(b"x" * 1000)
    assert fetch(Fetch((server.url,), "data.bin", SHA), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-", None]


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_checksum_leaves_nothing(server, tmp_path, kind):
    wrong = f"{kind}:" + "0" * (64 if kind == "sha256" else 32)
    with pytest.raises(DataError, match=f"checksum {kind}:[0-9a-f]+, not {wrong}"):
        fetch(Fetch((server.url,), "data.bin", wrong), tmp_path)
    assert not list(tmp_path.glob("data.bin*"))


def test_the_second_address_serves_where_the_first_does_not(server, tmp_path):
    urls = ("http://127.0.0.1:9/data.bin", server.url)
    assert fetch(Fetch(urls, "data.bin", SHA), tmp_path).read_bytes() == CONTENT


def text_set(url, **fields):
    item = {"url": url, "to": "t.txt", **fields}
    return {"kind": "text", "path": "words", "train": "t.txt", "length": 8, "download": item}


def test_a_set_downloads_itself_once(server, tmp_path):
    server.content = b"to be or not to be, that is the question. " * 40
    checksum = hashlib.md5(server.content, usedforsecurity=False).hexdigest()
    for _ in range(2):
        assert open_data(text_set(server.url, md5=checksum)).task == "language"
    assert (tmp_path / "datasets" / "words" / "t.txt").read_bytes() == server.content
    assert len(server.asked) == 1


def test_offline_it_is_told_what_to_fetch_and_where_to_put_it(tmp_path):
    with pytest.raises(DataError) as told:
        open_data(text_set("http://127.0.0.1:9/x/t.txt"))
    text = str(told.value)
    assert "could not be fetched" in text and "http://127.0.0.1:9/x/t.txt" in text
    assert str(tmp_path / "datasets" / "words" / "t.txt") in text
    assert "UNVANISH_DATA" in text and "path:" in text


def test_nothing_is_fetched_where_that_is_not_wanted(server, tmp_path):
    with pytest.raises(DataError, match="Fetch by hand"):
        open_data(text_set(server.url), download=False)
    assert not server.asked
