"""Videos, by stand-ins for the libraries that read them: the calls they take, frames in red, green, blue."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

from unvanish.lab.data import DataError
from unvanish.lab.data.sources import read_pictures
from unvanish.lab.data.video import READERS, is_video

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 6, 9, 3), np.uint8)  # red, green, blue


class Capture:
    """OpenCV's reader: frames in blue, green, red; False at the end."""

    opened = 0

    def __init__(self, path):
        assert isinstance(path, str)
        Capture.opened += 1
        self.left = [frame[..., ::-1] for frame in FRAMES]

    def read(self):
        return (True, self.left.pop(0)) if self.left else (False, None)

    def release(self):
        Capture.opened -= 1


class Container:
    """PyAV's: a context whose frames become arrays."""

    def __init__(self, path):
        assert isinstance(path, str)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def decode(self, video):
        assert video == 0
        for frame in FRAMES:
            yield types.SimpleNamespace(to_ndarray=lambda format, frame=frame: {"rgb24": frame}[format])


STAND_INS = {
    "cv2": types.SimpleNamespace(__name__="cv2", VideoCapture=Capture),
    "av": types.SimpleNamespace(__name__="av", open=Container),
    "imageio.v3": types.SimpleNamespace(__name__="imageio.v3", imiter=lambda path: iter(FRAMES)),
}


@pytest.fixture
def only(monkeypatch):
    """Make one library be installed, or none."""

    def choose(name=None):
        held = {n: STAND_INS[n] if n == name else None for n in READERS}
        for module, found in held.items():
            monkeypatch.setitem(sys.modules, module, found)
        monkeypatch.setitem(sys.modules, "imageio", types.ModuleType("imageio"))

    return choose


@pytest.mark.parametrize("name", list(READERS))
def test_frames_come_one_by_one_in_red_green_blue(only, tmp_path, name):
    only(name)
    video = tmp_path / "street.mp4"
    video.write_bytes(b"frames")
    made = list(read_pictures(video, 3))
    assert [origin for origin, _ in made] == [f"{video}:{i}" for i in (1, 2, 3, 4)]
    for (_, image), frame in zip(made, FRAMES, strict=True):
        assert torch.equal(image, torch.from_numpy(frame).permute(2, 0, 1))
    assert Capture.opened == 0
    assert len(list(read_pictures(f"{tmp_path}/*.mp4", 3))) == 4
    assert next(read_pictures(video, 1))[1].shape == (1, 6, 9)


def test_a_reader_that_is_left_early_is_closed(only, tmp_path):
    only("cv2")
    (tmp_path / "a.avi").write_bytes(b"frames")
    source = read_pictures(tmp_path / "a.avi", 3)
    next(source)
    assert Capture.opened == 1
    source.close()
    assert Capture.opened == 0


def test_without_a_library_it_is_told_what_to_install(only, tmp_path):
    only()
    (tmp_path / "a.mp4").write_bytes(b"frames")
    with pytest.raises(DataError, match=r"a.mp4 is a video, .* pip install opencv-python-headless, or av"):
        list(read_pictures(tmp_path / "a.mp4", 3))


def test_a_video_without_a_frame_is_told(only, tmp_path, monkeypatch):
    only("imageio.v3")
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setattr(STAND_INS["imageio.v3"], "imiter", lambda path: iter(()))
    with pytest.raises(DataError, match=r"cannot be read as a video: imageio.v3 found no frame"):
        list(read_pictures(tmp_path / "a.mp4", 3))
    monkeypatch.setattr(STAND_INS["imageio.v3"], "imiter", lambda path: 1 / 0)
    with pytest.raises(DataError, match=r"after 0 frames: division by zero"):
        list(read_pictures(tmp_path / "a.mp4", 3))


def test_by_its_name(tmp_path):
    assert is_video(tmp_path / "A.MP4") and not is_video(tmp_path / "a.png")
