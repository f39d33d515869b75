"""Pictures in every form people have them in, and what is said of what is none."""

from __future__ import annotations

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from unvanish.lab.data import DataError
from unvanish.lab.data.sources import read_pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
BLUE_FIRST = PIXELS[..., ::-1]  # as OpenCV has it
EXPECTED = torch.from_numpy(PIXELS).permute(2, 0, 1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "some/deep").mkdir(parents=True)
    for name in ("some/a.png", "some/b.png", "some/deep/c.png"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    (tmp_path / "some/notes.txt").write_text("no image")
    return tmp_path / "some"


def test_every_form_gives_the_same_pixels(folder):
    forms = [
        folder / "a.png", str(folder / "a.png"), BLUE_FIRST, EXPECTED, Image.fromarray(PIXELS), [BLUE_FIRST],
        (folder / "a.png",), iter([BLUE_FIRST]),
    ]  # fmt: skip
    for source in forms:
        [(_, image)] = read_pictures(source, 3)
        assert torch.equal(image, EXPECTED), type(source)


def test_folders_and_globs_are_taken_in_the_order_of_names(folder):
    names = [str(folder / name) for name in ("a.png", "b.png", "deep/c.png")]
    assert [origin for origin, _ in read_pictures(folder, 3)] == names
    assert [origin for origin, _ in read_pictures(f"{folder}/**/*.png", 3)] == names
    assert [origin for origin, _ in read_pictures(f"{folder}/?.png", 3)] == names[:2]


def test_lists_may_mix_and_are_read_one_by_one(folder):
    told = [origin for origin, _ in read_pictures([folder / "a.png", PIXELS, folder / "deep"], 3)]
    assert told == [str(folder / "a.png"), "image 1", str(folder / "deep/c.png")]
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield PIXELS

    source = read_pictures(endless(), 3)
    assert [next(source)[0] for _ in range(3)] == ["image 0", "image 1", "image 2"] and len(asked) == 3


def test_grey_pictures_have_three_channels_where_three_are_asked():
    [(_, image)] = read_pictures(PIXELS[..., 0], 3)
    assert image.shape == (3, 6, 9) and torch.equal(image[2], EXPECTED[0])


class Server(BaseHTTPRequestHandler):
    """An image at /image, a text at /text, nothing elsewhere."""

    def do_GET(self):
        buffer = io.BytesIO()
        Image.fromarray(PIXELS).save(buffer, "PNG")
        found = {"/image": buffer.getvalue(), "/text": b"no image"}.get(self.path)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def test_an_image_at_an_address(address):
    [(origin, image)] = read_pictures(f"{address}/image", 3)
    assert origin == f"{address}/image" and torch.equal(image, EXPECTED)
    with pytest.raises(DataError, match=r"/text is not an image .* fetch others by hand"):
        list(read_pictures(f"{address}/text", 3))
    with pytest.raises(DataError, match=r"/none could not be fetched \(Not Found\)"):
        list(read_pictures(f"{address}/none", 3))


def test_an_address_nobody_answers_at(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DataError, match=r"127.0.0.1:9/a.jpg could not be fetched .*; fetch it by hand"):
        list(read_pictures("http://127.0.0.1:9/a.jpg", 3))


@pytest.mark.parametrize("source", [3, {"a": PIXELS}, 0.5, None])
def test_what_holds_no_image_is_told(source):
    with pytest.raises(DataError, match=rf"of type {type(source).__name__} is not an image; give a file"):
        list(read_pictures(source, 3))
