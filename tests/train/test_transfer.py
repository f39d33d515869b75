"""Weights that were loaded stay: in a training for other data, in `val` and in `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unvanish.lab.models import build, read
from unvanish.train import Model, TrainError
from unvanish.train.transfer import Donor, find_rows, take_over

CONV = {
    "name": "conv",
    "task": "classify",
    "layers": [
        {"name": "stem", "module": "Conv", "out": 8, "kernel": 3, "stride": 2},
        {"name": "head", "module": "ClassifyHead"},
    ],
}
FLAT = {
    "name": "flat",
    "task": "classify",
    "layers": [
        {"module": "Flatten"},
        {"name": "one", "module": "Linear", "out_features": 8},
        {"name": "two", "module": "Linear", "out_features": 8},
        {"name": "head", "module": "ClassifyHead"},
    ],
}
WORDS = {
    "name": "words",
    "task": "sentiment",
    "layers": [
        {"name": "embed", "module": "Embedding", "width": 8},
        {"name": "cell", "module": "Recurrent", "cell": "gru", "width": 8},
        {"name": "read", "module": "Readout", "how": "last"},
        {"name": "head", "module": "ClassifyHead"},
    ],
}
QUIET: dict[str, Any] = {"verbose": False, "plots": False, "watch": False, "epochs": 1}


def pictures(folder: Path, names: tuple[str, ...], side: int = 8, seed: int = 0) -> str:
    """Images in a folder a class, each class of a colour of its own."""
    generator = np.random.default_rng(seed)
    for number, name in enumerate(names):
        for part, count in (("train", 8), ("val", 4)):
            place = folder / part / name
            place.mkdir(parents=True)
            for i in range(count):
                colour = generator.integers(0, 40, (side, side, 3))
                colour[..., number % 3] += 200 - 30 * number
                Image.fromarray(colour.astype(np.uint8)).save(place / f"{i}.png")
    return str(folder)


def train(model: Model, data: str, folder: Path, **arguments: Any) -> Path:
    """The weights of a short training."""
    best = model.train(data, project=str(folder), **{**QUIET, **arguments}).best
    assert best is not None
    return best


def beginning(model: Model, data: str, folder: Path, **arguments: Any) -> dict[str, torch.Tensor]:
    """The weights that a training begins with."""
    seen: dict[str, torch.Tensor] = {}

    def look(trainer: Any) -> None:
        seen.update({k: v.clone() for k, v in trainer.run.engine.network.state_dict().items()})

    model.add_callback("on_pretrain_routine_end", look)
    train(model, data, folder, **arguments)
    return seen


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    """The names under which both hold the same."""
    return {k for k in one if k in other and torch.equal(one[k], other[k])}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Pictures of cats and dogs, and weights that tell them apart."""
    folder = tmp_path_factory.mktemp("pair")
    data = pictures(folder / "a", ("cat", "dog"), 16)
    return data, train(Model(CONV), data, folder / "runs", epochs=30, lr0=0.05)


def test_a_convolution_keeps_all_at_another_size(tmp_path, pair, capsys):
    data, best = pair
    own = Model(best).network.state_dict()
    seen = beginning(Model(best), data, tmp_path, imgsz=8)
    assert equal(own, seen) == set(own)
    assert f"{len(own)} of {len(own)} tensors taken over" in capsys.readouterr().out


def test_only_the_rows_of_new_classes_begin_anew(tmp_path, capsys):
    best = train(Model(CONV), pictures(tmp_path / "a", ("cat", "dog", "fox")), tmp_path / "runs")
    own = Model(best).network.state_dict()
    data = pictures(tmp_path / "b", ("bird", "fox", "cat", "yak"), 16)
    seen = beginning(Model(best), data, tmp_path / "more")
    rows = set(find_rows(read(CONV), {"classes": 3, "channels": 3, "size": 8}))
    assert rows and equal(own, seen) == set(own) - rows
    for key in rows:  # bird, cat, fox, yak by alphabet
        assert torch.equal(seen[key][[1, 2]], own[key][[0, 2]])
    said = capsys.readouterr().out
    assert "kept by name" in said and "bird, yak begin anew" in said


def test_as_many_other_classes_are_other_classes(tmp_path, pair):
    own = Model(pair[1]).network.state_dict()
    seen = beginning(Model(pair[1]), pictures(tmp_path / "b", ("pan", "pot")), tmp_path / "more")
    assert set(own) - equal(own, seen) == set(find_rows(read(CONV), {"classes": 2, "channels": 3, "size": 8}))


def test_what_does_not_fit_is_named(tmp_path, capsys):
    best = train(Model(FLAT), pictures(tmp_path / "a", ("cat", "dog")), tmp_path / "runs")
    own = Model(best).network.state_dict()
    seen = beginning(Model(best), str(tmp_path / "a"), tmp_path / "more", imgsz=16)
    left = set(own) - equal(own, seen)
    assert left and all("one" in key for key in left)
    assert "begin anew, as they have another shape" in capsys.readouterr().out


def test_pretrained_goes_the_same_way(tmp_path, pair):
    own = Model(pair[1]).network.state_dict()
    data = pictures(tmp_path / "b", ("ant", "dog"), 8)
    seen = beginning(Model(CONV), data, tmp_path / "more", pretrained=str(pair[1]))
    rows = find_rows(read(CONV), {"classes": 2, "channels": 3, "size": 8})
    assert equal(own, seen) == set(own) - set(rows)
    assert all(torch.equal(seen[key][1], own[key][1]) for key in rows)


@pytest.mark.parametrize("size", [16, 32])
def test_val_and_check_change_nothing(pair, size):
    model = Model(pair[1])
    network, before = model.network, {k: v.clone() for k, v in model.network.state_dict().items()}
    assert model.val(verbose=False).metrics["accuracy"] == 1.0
    assert model.val(imgsz=size, verbose=False).metrics["accuracy"] == 1.0
    model.check(imgsz=size)
    assert model.network is network and equal(before, network.state_dict()) == set(before)
    assert model.val(verbose=False).metrics["accuracy"] == 1.0


def test_val_of_some_classes_in_another_order(tmp_path):
    best = train(
        Model(CONV), pictures(tmp_path / "a", ("z", "b", "a"), 16), tmp_path / "runs", epochs=30, lr0=0.05
    )
    model = Model(best)
    assert model.val(verbose=False).metrics["accuracy"] == 1.0
    for folder in (tmp_path / "a" / "train" / "b", tmp_path / "a" / "val" / "b"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert model.val(str(tmp_path / "a"), verbose=False).metrics["accuracy"] == 1.0


@pytest.mark.parametrize("doing", ["val", "check"])
def test_weights_for_other_data_are_refused(tmp_path, pair, doing):
    model = Model(pair[1])
    with pytest.raises(TrainError, match="is not for this data, which has classes 3 instead of 2"):
        getattr(model, doing)(pictures(tmp_path / "b", ("bird", "fox", "yak")))
    assert model.val(verbose=False).metrics["accuracy"] == 1.0


def test_names_in_another_order_are_the_same_classes(tmp_path, pair):
    yaml = tmp_path / "turned.yaml"
    yaml.write_text(f"kind: folder\npath: {pair[0]}\nnames: [dog, cat]\n")
    assert Model(pair[1]).val(str(yaml), verbose=False).metrics["accuracy"] == 1.0


def test_numbers_that_mean_other_classes_are_refused(pair, capsys):
    model = Model(pair[1])
    with pytest.raises(TrainError, match=r"number the classes dog, cat, .* cat, dog"):
        model.suit(model.facts, ("dog", "cat"))
    assert model.suit(model.facts, ("pan", "pot")) is model.network
    assert "compared by number" in capsys.readouterr().out


def test_val_needs_weights(tmp_path):
    with pytest.raises(TrainError, match="has no weights yet"):
        Model(CONV).val(pictures(tmp_path / "a", ("cat", "dog")))


def test_a_check_leaves_an_unbuilt_model_unbuilt(tmp_path):
    model = Model(CONV)
    model.check(pictures(tmp_path / "a", ("cat", "dog")))
    assert model.network is None


def test_texts_are_read_with_the_vocabulary_of_the_weights(tmp_path):
    def table(name: str, words: list[str]) -> str:
        rows = [f"{word} is {'good' if i % 2 else 'bad'},{i % 2}" for i in range(20) for word in words]
        (tmp_path / name).write_text("text,label\n" + "\n".join(rows) + "\n")
        return str(tmp_path / name)

    best = train(Model(WORDS), table("a.csv", ["film", "book"]), tmp_path / "runs", epochs=20, lr0=0.02)
    own = Model(best).network.state_dict()
    other = table("b.csv", ["awful", "zebra", "yonder", "apple"])  # would number the words otherwise
    assert Model(best).val(other, verbose=False).metrics["accuracy"] == 1.0
    assert equal(own, beginning(Model(best), other, tmp_path / "more")) == set(own)
    run = next((tmp_path / "more").iterdir())
    again = Model(WORDS)
    again.train(resume=str(run), epochs=2, verbose=False, plots=False)
    assert again.about["preparation"]["vocabulary"] == Model(best).about["preparation"]["vocabulary"]


def test_pretrained_counts_for_weights_that_were_loaded_too(tmp_path, pair):
    data = pictures(tmp_path / "b", ("cat", "dog"), 16, seed=5)
    other = train(Model(CONV), data, tmp_path / "runs")
    own = Model(other).network.state_dict()
    seen = beginning(Model(pair[1]), data, tmp_path / "more", pretrained=str(other))
    assert equal(own, seen) == set(own)


def test_weights_bring_the_names_of_their_classes(tmp_path, pair):
    other = train(Model(CONV), pictures(tmp_path / "b", ("pan", "pot"), 16), tmp_path / "runs")
    assert Model(pair[1]).load(other).names == ["pan", "pot"]
    assert Model(CONV).load(other).names == ["pan", "pot"]


def test_a_detector_for_other_classes_at_another_size():
    spec = read("yolo11n.yaml")
    torch.manual_seed(0)
    facts = {"classes": 4, "channels": 3, "size": 64}
    old = build(spec, **facts)
    more = {"classes": 3, "channels": 3, "size": 96}
    new = build(spec, **more)
    origin = Donor(old.state_dict(), ("circle", "square", "triangle", "star"), "old")
    taken = take_over(new, spec, more, ("star", "moon", "circle"), origin)
    same = equal(old.state_dict(), new.state_dict())
    rows = find_rows(spec, facts)
    assert len(rows) == 6 and all(old.state_dict()[key].shape[axis] == 4 for key, axis in rows.items())
    assert set(old.state_dict()) - same == set(rows) == set(taken.part) and not taken.fresh
    for key in rows:
        assert torch.equal(new.state_dict()[key][[0, 2]], old.state_dict()[key][[3, 0]])
