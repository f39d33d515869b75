"""Image sets from files: idx, CIFAR, folders, YOLO; what is broken is named, counted and left out."""

from __future__ import annotations

import gzip
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from unvanish.lab.data import DataError, open_data
from unvanish.lab.data.augment import random_crop, random_flip, resize, statistics


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def random_image(seed, rows=12, columns=12):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    for part, count in (("train", 6), ("val", 2)):
        for c, name in enumerate(("cat", "dog")):
            for i in range(count):
                save(root / part / name / f"{i}.png", random_image([c, i, count]))
    return root


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_a_folder_for_each_class(pets):
    data = open_data(pets, batch=4, augment=False)
    assert data.names == ("cat", "dog") and data.facts == {"classes": 2, "channels": 3, "size": 12}
    assert data.sizes == {"train": 12, "val": 4} and not data.problems.total
    x, y = next(iter(data.val))
    mean, std = (torch.tensor(data.preparation[k]).view(3, 1, 1) for k in ("mean", "std"))
    pixels = ((x[2] * std + mean) * 255).round().byte().permute(1, 2, 0).numpy()
    assert y.tolist() == [0, 0, 1, 1] and (pixels == random_image([1, 0, 2])).all()


@pytest.mark.parametrize("cache", [True, False])
def test_broken_images_are_named_counted_and_left_out(pets, cache):
    whole = (pets / "train/cat/0.png").read_bytes()
    (pets / "train/cat/0.png").write_bytes(whole[:100])
    (pets / "train/dog/1.png").write_bytes(b"")
    (pets / "val/dog/0.png").write_text("no image", encoding="utf-8")
    data = open_data(pets, cache=cache)
    assert data.sizes == {"train": 10, "val": 3} and data.problems.counts == {"broken image": 3}
    assert {p.file.removeprefix(str(pets)) for p in data.problems} == {
        "/train/cat/0.png",
        "/train/dog/1.png",
        "/val/dog/0.png",
    }
    assert "the file is empty" in str(data.problems) and "3 problems" in data.problems.summary()
    y = torch.cat([y for _, y in data.train])
    assert torch.bincount(y).tolist() == [5, 5]


def test_an_image_that_breaks_later_is_left_out_with_a_warning(pets):
    data = open_data(pets, cache=False, batch=12)
    (pets / "train/cat/0.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"cat/0.png was readable before"):
        x, y = next(iter(data.train))
    assert len(x) == 12 and torch.bincount(y).sum() == 12


def test_classes_that_do_not_match_are_told(pets):
    (pets / "pets.yaml").write_text("train: train\nkind: folder\nnc: 3\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"nc .* is 3, but the data have 2 classes: cat, dog"):
        open_data(pets / "pets.yaml")
    turned = open_data({"kind": "folder", "path": str(pets), "names": ["dog", "cat"]})
    assert turned.names == ("dog", "cat") and next(iter(turned.val))[1].tolist() == [0, 0, 1, 1]
    pixels = turned.content.val.x[0].permute(1, 2, 0).numpy()
    assert (pixels == random_image([1, 0, 2])).all()  # a dog
    save(pets / "val/cow/0.png", random_image(0))
    (pets / "train/emu").mkdir()
    assert open_data(pets).problems.counts == {"unknown class": 1, "empty class": 2}


def test_without_a_validation_folder_some_of_every_class_are_held_out(pets):
    for i in range(6, 20):
        save(pets / "train/dog" / f"{i}.png", random_image([1, i, 6]))
    (pets / "val").rename(pets / "unused")
    spec = {"kind": "folder", "path": str(pets), "held_out": 0.25}
    data, again = open_data(spec), open_data(spec, seed=5)
    assert data.sizes == {"train": 19, "val": 7}
    assert torch.equal(next(iter(data.val))[0], next(iter(again.val))[0])  # whatever the seed


def test_nothing_to_train_with_is_told(tmp_path):
    (tmp_path / "none/train/cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"train contains no images"):
        open_data(tmp_path / "none")
    save(tmp_path / "some/train/cat/0.png", random_image(0))
    (tmp_path / "some/val/cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"val has no usable sample.*1 x empty class"):
        open_data(tmp_path / "some")


@pytest.mark.parametrize("form", ["tar.xz", "zip"])
def test_folders_are_read_out_of_an_archive(pets, tmp_path, form):
    archive = tmp_path / f"pets.{form}"
    if form == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in sorted(pets.rglob("*.png")):
                packed.write(file, f"pets/{file.relative_to(pets)}")
    else:
        with tarfile.open(archive, "w:xz") as packed:
            packed.add(pets, "pets")
    data = open_data({"kind": "folder", "archive": archive.name})
    assert data.sizes == {"train": 12, "val": 4}
    assert torch.equal(next(iter(data.val))[0], next(iter(open_data(pets).val))[0])


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        packed.writestr("../../escaped.png", b"x")
    with pytest.raises(DataError, match="would be written outside"):
        open_data({"kind": "folder", "archive": "bad.zip"})
    assert not list(tmp_path.rglob("escaped.png"))


@pytest.mark.parametrize("form", ["gz", ""])
def test_idx_files(tmp_path, form):
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (30, 5, 5), np.uint8), np.arange(30, dtype=np.uint8) % 10
    for part, n in (("train", 30), ("t10k", 10)):
        for what, array in (("images-idx3", images[:n]), ("labels-idx1", labels[:n])):
            file = tmp_path / "mnist" / f"{part}-{what}-ubyte{'.gz' if form else ''}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(gzip.compress(idx(array)) if form else idx(array))
    data = open_data("mnist", batch=10, download=False)
    part = data.content.train
    assert (part.x[:, 0].numpy() == images).all() and part.y.tolist() == labels.tolist()
    assert data.sizes == {"train": 30, "val": 10} and data.facts["size"] == 5
    assert open_data("mnist", imgsz=10).facts["size"] == 10
    with pytest.raises(DataError, match="nc is 3, but there are labels up to 9"):
        open_data({"kind": "idx", "path": "mnist", "nc": 3})
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"t10k-labels.*(should have|cannot be read)"):
        open_data("mnist")


def cifar_rows(count, head):
    generator = np.random.default_rng(count)
    pixels = generator.integers(0, 256, (count, 3072), np.uint8)
    labels = generator.integers(0, 10, (count, head), np.uint8)
    return pixels, labels


def names_of(classes):
    return ([f"data_batch_{i}" for i in range(1, 6)], "test_batch") if classes == 10 else (["train"], "test")


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar_binary_and_python_are_the_same(tmp_path, classes, packed):
    names, test = names_of(classes)
    head = 1 if classes == 10 else 2
    found = []
    for form in ("bin", "py"):
        base = tmp_path / form / f"cifar{classes}"
        folder = (
            base
            / {
                ("bin", 10): "cifar-10-batches-bin",
                ("bin", 100): "cifar-100-binary",
                ("py", 10): "cifar-10-batches-py",
                ("py", 100): "cifar-100-python",
            }[form, classes]
        )
        folder.mkdir(parents=True)
        for number, name in enumerate([*names, test]):
            pixels, labels = cifar_rows(7 + number, head)
            if form == "bin":
                (folder / f"{name}.bin").write_bytes(np.concatenate([labels, pixels], 1).tobytes())
            else:
                key = b"labels" if classes == 10 else b"fine_labels"
                batch = {b"data": pixels, key: labels[:, -1].tolist(), b"batch_label": b"x"}
                (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        if packed:
            ending = "python" if form == "py" else "binary"
            with tarfile.open(base / f"cifar-{classes}-{ending}.tar.gz", "w:gz") as tar:
                tar.add(folder, folder.name)
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        data = open_data({"kind": "cifar", "path": str(base), "classes": classes}, download=False)
        found.append((data.content.train.x, data.content.train.y, data.content.val.x))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    pixels, labels = cifar_rows(7, head)
    images, classes_read, _ = found[0]
    assert (images[:7].numpy().reshape(7, -1) == pixels).all()
    assert classes_read[:7].tolist() == labels[:, -1].tolist()


class Evil:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*names_of(10)[0], "test_batch"]:
        (folder / name).write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}, protocol=2))
    with pytest.raises(DataError, match=r"data_batch_1 was not loaded: it requires \w+.open"):
        open_data("cifar10", download=False)
    assert not (tmp_path / "ran").exists()


def coco(tmp_path, labels):
    for i, text in enumerate(labels):
        save(tmp_path / "set/images/train" / f"{i}.png", random_image(i, 20, 40))
        file = tmp_path / "set/labels/train" / f"{i}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            file.write_text(text, encoding="utf-8")
    parts = "train: images/train\nval: images/train"
    (tmp_path / "set.yaml").write_text(f"path: set\n{parts}\nnames: {{0: a, 1: b}}\n", encoding="utf-8")
    return tmp_path / "set.yaml"


@pytest.mark.parametrize("cache", [True, False])
def test_yolo_labels_with_their_problems(tmp_path, cache):
    two, wrong = (
        "0 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.1 0.2",
        "5 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.1",
    )
    yaml = coco(tmp_path, [two, wrong, "", None])
    (tmp_path / "set/images/train/9.jpg").write_bytes(b"\xff\xd8broken")
    data = open_data(yaml, imgsz=80, batch=4, cache=cache)
    assert data.task == "detect" and data.sizes == {"train": 4, "val": 4}
    assert data.problems.counts == {
        "broken image": 1,
        "class out of range": 1,
        "wrong count": 1,
        "empty label file": 1,
        "no label file": 1,
    }
    assert any(str(p).endswith("1.txt:3: 4 numbers instead of 5 (class x y w h)") for p in data.problems)
    x, y = next(iter(data.val))
    assert x.shape == (4, 3, 80, 80) and float(x.min()) >= 0 and float(x.max()) <= 1
    torch.testing.assert_close(
        y,
        torch.tensor([[0, 0, 0.5, 0.5, 0.5, 0.25], [0, 1, 0.25, 0.5, 0.1, 0.1], [1, 1, 0.5, 0.5, 0.2, 0.1]]),
        atol=1e-5,
        rtol=0,
    )


def test_a_list_of_images_names_those_that_are_missing(tmp_path):
    coco(tmp_path, ["0 0.5 0.5 0.5 0.5"])
    listed = "./images/train/0.png\n\n./images/train/7.png\n"
    (tmp_path / "set/train.txt").write_text(listed, encoding="utf-8")
    data = open_data({"kind": "yolo", "path": "set", "train": "train.txt", "nc": 1}, imgsz=32)
    assert data.sizes == {"train": 1} and data.val is None
    assert [(p.line, p.sort) for p in data.problems] == [(3, "missing image")]


def test_crops_and_flips_are_those_of_the_image():
    x = torch.randint(1, 256, (20, 3, 6, 6), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    padded = torch.nn.functional.pad(x, [2] * 4)
    seen = set()
    for image, source in zip(random_crop(x, 2, generator), padded, strict=True):
        corners = [(i, j) for i in range(5) for j in range(5)]
        places = [(i, j) for i, j in corners if torch.equal(source[:, i : i + 6, j : j + 6], image)]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 5
    mirrored = random_flip(x, generator)
    same = [torch.equal(a, b) for a, b in zip(mirrored, x, strict=True)]
    turned = [torch.equal(a, b.flip(-1)) for a, b in zip(mirrored, x, strict=True)]
    assert 3 < sum(same) < 17 and sum(same) + sum(turned) == 20


def test_statistics_and_sizes():
    x = torch.randint(0, 256, (50, 2, 4, 4), dtype=torch.uint8)
    mean, std = statistics(x)
    values = x.double().numpy() / 255
    assert mean == pytest.approx(values.mean((0, 2, 3)), abs=1e-4)
    assert std == pytest.approx(values.std((0, 2, 3)), abs=1e-4)
    assert statistics(torch.zeros(3, 1, 2, 2, dtype=torch.uint8)) == ((0.0,), (1.0,))
    grey = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    assert (resize(grey, 32) == 77).all() and resize(grey, (3, 5)).shape == (1, 1, 3, 5)
