"""Data by name: `open_data("cifar10.yaml")` gives loaders that are fast, reproducible and resumable.

Notable:
- Batches of epoch e depend on (seed, e) alone, with any number of workers, and any batch can be the first.
- Broken images, labels and lines are not fatal: they are left out, named and counted in `data.problems`.
- A download reports what it does, resumes, and verifies checksums; offline, the error says what to fetch and
  where to put it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from unvanish.lab.data.chosen import choose_labels
from unvanish.lab.data.content import Content, Source, rename_classes
from unvanish.lab.data.inputs import decode, inputs
from unvanish.lab.data.loading import build_loader
from unvanish.lab.data.mosaic import Mixing, mix_scenes
from unvanish.lab.data.narrow import narrow_scenes
from unvanish.lab.data.order import Order
from unvanish.lab.data.part import Batch, Draw, fraction_of, seed_generator
from unvanish.lab.data.problems import DataError, Problem, Problems
from unvanish.lab.data.scenes import Scenes
from unvanish.lab.data.spec import DataSpec, read, sets
from unvanish.lab.data.transforms import own_view

__all__ = ["Data", "DataError", "DataSpec", "Problem", "Problems", "decode", "inputs", "open_data", "sets"]


def require_classes(spec: DataSpec, content: Content) -> None:
    """DataError if a classifier would be trained on one class only."""
    labels = content.train.labels
    if spec.task not in ("classify", "sentiment") or labels is None or not len(labels):
        return
    if (labels == labels[0]).all():
        name = content.names[labels[0]] if labels[0] < len(content.names) else labels[0]
        raise DataError(
            f"{spec.file or spec.name}: all {len(labels):,} training samples are of the class {name!r}; a"
            " classifier needs two classes: look at the labels, the folders or the split"
        )


@dataclass(frozen=True)
class Data:
    """An opened data set: its loaders (`val` and `test` may be None), facts and problems."""

    spec: DataSpec
    content: Content
    problems: Problems
    train: DataLoader[Batch]
    val: DataLoader[Batch] | None
    test: DataLoader[Batch] | None

    @property
    def task(self) -> str:
        """The task that the data are for."""
        return self.spec.task

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a network needs to know: classes, channels, size, length, vocabulary, features, outputs."""
        return self.content.facts

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.content.names

    @property
    def preparation(self) -> Mapping[str, Any]:
        """How a raw sample becomes an input, as JSON-serialisable data for a checkpoint; see `inputs`."""
        return self.content.preparation

    @property
    def description(self) -> str:
        """One line: name, description and the number of samples."""
        counts = ", ".join(f"{n:,} {part}" for part, n in self.sizes.items())
        return f"{self.spec.name}: {self.spec.description or self.spec.kind.name} ({counts})"

    @property
    def sizes(self) -> dict[str, int]:
        """The number of samples of each part."""
        loaders = {"train": self.train, "val": self.val, "test": self.test}
        return {name: len(found.dataset) for name, found in loaders.items() if found}  # type: ignore[arg-type]

    def start_epoch(self, epoch: int, first: int = 0) -> None:
        """Make the next pass over `train` that of an epoch, from its batch `first` on."""
        order = self.train.batch_sampler
        assert isinstance(order, Order)
        order.start(epoch, first)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, by the vocabulary of inputs."""
        if self.content.vocabulary is None:
            raise DataError(f"{self.spec.name} is not a data set of text")
        return self.content.vocabulary.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, by the vocabulary of targets if there are two."""
        vocabulary = self.content.target_vocabulary or self.content.vocabulary
        if vocabulary is None:
            raise DataError(f"{self.spec.name} is not a data set of text")
        return vocabulary.decode(ids)


def open_data(
    source: str | Path | Mapping[str, Any],
    task: str | None = None,
    batch: int = 64,
    workers: int = 0,
    seed: int = 0,
    cache: bool | None = None,
    imgsz: int | None = None,
    fraction: float = 1.0,
    download: bool = True,
    augment: bool = True,
    mixing: Mixing | None = None,
    colours: Scenes | None = None,
    known: Mapping[str, Any] | None = None,
    transforms: Any = None,
    classes: Any = None,
    single: bool = False,
    narrow: bool = False,
    **settings: Any,
) -> Data:
    """Open a data set by its YAML's name or path, or by a mapping; DataError names the problem.

    `cache` keeps decoded images in memory (None: if they are small), `imgsz` is the side of images,
    `fraction` of the training part is used, its classes in proportion; `mixing` and `colours` set the
    augmentation of scenes with boxes; `known` is the preparation of loaded weights, whose vocabulary, means
    and order of classes are kept; `transforms` of the user's take the place of all augmentation; `classes`,
    `single` and `narrow` are for boxes, see `choose_labels` and `narrow_scenes`; `settings` override those of
    the YAML.
    """
    if batch < 1 or not 0 < fraction <= 1:
        raise DataError(f"batch must be 1 or more, fraction in (0, 1]; they are {batch} and {fraction}")
    spec = read(source, task, **settings)
    wanted = Source(spec, imgsz, cache, download, known=dict(known or {}))
    for note in spec.notes:
        wanted.problems.add(note.partition(": ")[0], 0, "unused key", note.partition(": ")[2])
    content = choose_labels(rename_classes(wanted.read(), spec), classes, single)
    train = fraction_of(content.train, fraction, seed)
    for name, part in (("train", train), ("val", content.val)):
        if part is not None and not len(part):
            raise DataError(f"{spec.file or spec.name}: {name} has no usable sample. {wanted.problems}")
    require_classes(spec, content)
    others = [
        build_loader(part, content.still, batch, seed, False, workers) if part is not None else None
        for part in (content.val, content.test)
    ]
    view = content.view if augment else content.still
    if transforms is not None:
        view = own_view(transforms, content.still, spec.task)
        view(
            train.batch(np.arange(1), Draw(0, seed_generator(seed, 0))), seed_generator(seed, 0)
        )  # fails early
    elif augment and isinstance(view, Scenes):
        view = colours or view
        train = mix_scenes(train, mixing) if mixing is not None else train
    train = narrow_scenes(train) if narrow else train
    first = build_loader(train, view, batch, seed, True, workers)
    return Data(spec, content, wanted.problems, first, *others)
