"""Loaders: the same batches with any number of workers, after any interruption, without touching global
chance.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unvanish.lab.data import DataError, open_data


def folder_of_images(root, count=9, size=20):
    for part, number in (("train", count), ("val", 3)):
        for c, name in enumerate(("cat", "dog")):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(number):
                pixels = np.random.default_rng([c, i, number]).integers(0, 256, (size, size + c, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root


def same(one, other):
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return torch.equal(one, other)


def pairs_yaml(root):
    for part, count in (("train", 60), ("val", 8)):
        generator = np.random.default_rng(count)
        for language, words in (("de", ["ein", "haus", "am", "see"]), ("en", ["a", "house", "by", "lake"])):
            rows = [" ".join(generator.choice(words, generator.integers(1, 9))) for _ in range(count)]
            (root / f"{part}.{language}").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {"kind": "parallel", "train": ["train.de", "train.en"], "val": ["val.de", "val.en"]}


def opened(which, tmp_path, **options):
    if which == "images":
        place = tmp_path / "pictures"
        options = {"cache": False, "imgsz": 16, **options}
        return open_data(place if place.exists() else folder_of_images(place), batch=4, **options)
    if which == "pairs":
        return open_data(pairs_yaml(tmp_path), batch=8, tokens="words", **options)
    if which == "text":
        file = tmp_path / "long.txt"
        file.write_text("the quick brown fox jumps over the lazy dog. " * 40, encoding="utf-8")
        return open_data(file, batch=4, length=16, **options)
    small = {} if which == "digits" else {"samples": 64, "val_samples": 8}
    return open_data(which, batch=16, **small, **options)


ALL = ("digits", "shapes", "adding", "copy", "images", "pairs", "text")


@pytest.mark.parametrize("which", ALL)
def test_an_epoch_entered_later_gives_the_same_batches(which, tmp_path):
    data = opened(which, tmp_path)
    data.start_epoch(3)
    whole = list(data.train)
    assert len(whole) == len(data.train)
    other = opened(which, tmp_path)
    other.start_epoch(3, first=2)
    assert same(list(other.train), whole[2:]) and len(other.train) == len(whole)
    data.start_epoch(4)
    assert not same(list(data.train), whole)
    assert not same(whole, list(opened(which, tmp_path, seed=1).train))
    assert same(list(data.val), list(other.val))


@pytest.mark.parametrize("which", ["images", "digits"])
def test_workers_change_nothing(which, tmp_path):
    alone, helped = opened(which, tmp_path), opened(which, tmp_path, workers=2)
    for epoch in (0, 1):
        alone.start_epoch(epoch)
        helped.start_epoch(epoch)
        assert same(list(alone.train), list(helped.train))
    assert same(list(alone.val), list(helped.val))
    assert helped.train.num_workers == (2 if which == "images" else 0)


def test_the_cache_changes_nothing(tmp_path):
    read_each_time, held = opened("images", tmp_path), opened("images", tmp_path, cache=True)
    assert held.content.train.in_memory and not read_each_time.content.train.in_memory
    assert same(list(read_each_time.train), list(held.train))


def test_global_chance_is_left_alone(tmp_path):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for which in ("digits", "images"):
        list(opened(which, tmp_path).train)
    assert torch.equal(before, torch.get_rng_state())


def test_augmentation_can_be_turned_off_and_moves_pixels_otherwise():
    plain, moved = open_data("digits", augment=False), open_data("digits")
    (x, y), (p, q) = next(iter(plain.train)), next(iter(moved.train))
    assert torch.equal(y, q) and not torch.equal(x, p)
    assert torch.equal(x[:, :, 1:-1, 1:-1].sum((1, 2, 3)) != 0, torch.ones(64, dtype=torch.bool))


@pytest.mark.parametrize("fraction", [0.05, 0.3])
def test_a_fraction_keeps_the_shares_of_the_classes(fraction):
    data = open_data("digits", fraction=fraction, batch=2000)
    _, y = next(iter(data.train))
    whole = torch.bincount(next(iter(open_data("digits", batch=2000).train))[1])
    counts = torch.bincount(y, minlength=10)
    assert ((counts - whole * fraction).abs() <= 0.5 + 1e-6).all()
    assert data.sizes["val"] == 359


@pytest.mark.parametrize("options", [{"batch": 0}, {"fraction": 0.0}, {"fraction": 1.5}])
def test_impossible_options_are_refused(options):
    with pytest.raises(DataError, match="batch must be"):
        open_data("digits", **options)


def test_windows_pass_over_the_text_from_another_place_each_epoch(tmp_path):
    data = opened("text", tmp_path)
    text = (tmp_path / "long.txt").read_text()[: round(1800 * 0.9)]
    starts = []
    for epoch in range(3):
        data.start_epoch(epoch)
        both = [pair for x, y in data.train for pair in zip(x.tolist(), y.tolist(), strict=True)]
        rows = [(data.decode(one), data.decode(other)) for one, other in both]
        assert all(one[1:] == other[:-1] and one in text for one, other in rows)
        covered = sum(len(one) for one, _ in rows)
        assert covered >= len(text) - 2 * 16 - 1 - 16
        starts.append(sorted(one for one, _ in rows))
    assert starts[0] != starts[1]


def test_more_memory_than_there_is_is_told_and_done_without(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    data = opened("images", tmp_path, cache=True)
    assert not data.content.train.in_memory and data.problems.counts == {"cache not used": 1}
