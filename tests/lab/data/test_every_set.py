"""Every data set that comes along, and every kind, keeps the contract; those without files give batches as
told.
"""

from __future__ import annotations

import re

import pytest
import torch

from unvanish.lab.data import DataError, open_data, sets
from unvanish.lab.data.kinds import kinds
from unvanish.lab.data.spec import read
from unvanish.lab.tasks import task

EMBEDDED = ("digits", "shapes", "adding", "copy", "sequential-digits", "permuted-digits")


@pytest.mark.parametrize("name", sets())
def test_a_set_is_described_and_its_downloads_are_checkable(name):
    spec = read(name)
    assert spec.description and spec.file
    assert all(url.startswith("http") for item in spec.download for url in item.urls)
    for item in spec.download:
        assert re.fullmatch(r"(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})?", item.checksum)


@pytest.mark.parametrize("name", kinds())
def test_a_kind_has_a_page_and_serves_something(name):
    kind = kinds()[name]
    assert len(kind.page) > 100 and kind.tasks
    assert all(default is not None for default in kind.settings.values())  # so that types can be checked


@pytest.mark.parametrize("name", [n for n in sets() if n not in EMBEDDED])
def test_without_files_it_is_told_what_to_do(name):
    with pytest.raises(DataError, match=r"UNVANISH_DATA") as told:
        open_data(name, download=False)
    assert all(item.to in str(told.value) for item in read(name).download)


@pytest.mark.parametrize("name", EMBEDDED)
def test_batches_are_as_the_facts_say(name):
    small = {"samples": 64, "val_samples": 16} if name in ("shapes", "adding", "copy") else {}
    data = open_data(name, batch=16, **small)
    x, y = next(iter(data.train))
    facts = data.facts
    if data.task == "classify":
        assert x.shape == (16, facts["channels"], facts["size"], facts["size"]) and y.shape == (16,)
        assert abs(float(x.mean())) < 0.6 and 0.5 < float(x.std()) < 1.5
    else:
        assert x.shape == (16, facts["length"], facts["features"])
    assert x.dtype == torch.float32 and torch.isfinite(x).all()
    if not y.is_floating_point():
        assert int(y.min()) >= 0 and int(y.max()) < facts["classes"] == len(data.names)
    metrics = task(data.task).metrics(facts)
    shape = (16, *y.shape[1:], facts.get("outputs", facts.get("classes", 1)))
    metrics.update(torch.randn(shape), y)
    assert task(data.task).fitness in metrics.compute()
    assert len(data.sizes) == 2 and f"{data.sizes['train']:,} train" in data.description
    assert not data.problems.total


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data = open_data("digits", batch=2000, augment=False)
    (x, y), (v, w) = next(iter(data.train)), next(iter(data.val))
    assert torch.bincount(torch.cat([y, w])).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(w) == 359
    mean, std = data.preparation["mean"][0], data.preparation["std"][0]
    grey = ((torch.cat([x, v]) * std + mean) * 16).round().sum()
    assert float(grey) == pytest.approx(load_digits().images.sum(), rel=1e-3)


def test_adding_is_the_sum_of_the_marked():
    data = open_data("adding", batch=100, length=30, samples=200)
    x, y = next(iter(data.train))
    assert (x[..., 1].sum(1) == 2).all() and (x[:, :15, 1].sum(1) == 1).all()
    assert torch.allclose((x[..., 0] * x[..., 1]).sum(1), y)
    (v, w), (v2, _) = next(iter(data.val)), next(iter(data.val))
    assert torch.equal(v, v2) and not torch.equal(v[:100], x)
    assert abs(float(((w - 1) ** 2).mean()) - 1 / 6) < 0.05


def test_copying_asks_for_the_first_ten_symbols_at_the_end():
    data = open_data("copy", batch=8, pause=12)
    x, y = next(iter(data.train))
    shown = x.argmax(-1)
    assert torch.equal(y[:, -10:], shown[:, :10]) and (y[:, :-10] == 0).all()
    assert int(shown[:, :10].min()) >= 1 and int(shown[:, :10].max()) <= 8
    assert (shown[:, 21] == 9).all() and (shown[:, 10:21] == 0).all() and (shown[:, 22:] == 0).all()


def test_pixels_come_in_one_order():
    plain = open_data("sequential-digits", batch=32)
    mixed = open_data("permuted-digits", batch=32)
    (x, y), (p, q) = next(iter(plain.val)), next(iter(mixed.val))
    image = next(iter(open_data("digits", batch=32).val))[0]
    assert torch.equal(y, q) and torch.allclose(x.view(32, 8, 8), image[:, 0])
    assert not torch.equal(x, p) and torch.equal(x.sort(1).values, p.sort(1).values)


def test_shapes_carry_boxes_and_polygons_of_what_is_drawn():
    data = open_data("shapes", task="segment", imgsz=64, samples=12, val_samples=4, batch=4)
    x, y = next(iter(data.train))
    rows, masks = y
    assert x.shape == (4, 3, 64, 64) and rows.shape[1] == 6 and set(rows[:, 0].tolist()) == {0, 1, 2, 3}
    assert masks.shape == (len(rows), 16, 16) and masks.dtype == torch.uint8
    for row, mask in zip(rows, masks, strict=True):  # a mask fills its box to the edges, and no more
        edges = torch.cat((row[2:4] - row[4:] / 2, row[2:4] + row[4:] / 2)) * 16
        lit = mask.nonzero()
        found = torch.cat((lit.min(0).values.flip(0), lit.max(0).values.flip(0) + 1))
        assert (found - edges).abs().max() <= 1.5
    part = data.content.train
    for index in range(12):
        labels = part.labels_at(index)
        for polygon, box in zip(labels.polygons, labels.boxes, strict=True):
            assert polygon.min() >= 0 and polygon.max() <= 1 and box[2:].min() > 0.1
        inside = part.image(index)[:, int(labels.boxes[0, 1] * 64), int(labels.boxes[0, 0] * 64)]
        corner = part.image(index)[:, 0, 0]
        assert (inside.int() - corner.int()).abs().max() > 60  # the middle of a box is painted
