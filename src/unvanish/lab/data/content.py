"""A data set to be read (`Source`), and one that was read (`Content`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unvanish.core.names import show
from unvanish.lab.data import download, places
from unvanish.lab.data.augment import Pixels, resize, statistics
from unvanish.lab.data.limits import refuse_large
from unvanish.lab.data.part import Batch, Part, Tensors
from unvanish.lab.data.problems import DataError, Problems
from unvanish.lab.data.spec import DataSpec
from unvanish.lab.data.vocabulary import Vocabulary, restore_vocabulary

SCALED = 5.0  # bytes of a value while an image is scaled: as float32 and as uint8
View = Callable[[Batch, torch.Generator], Batch]


@dataclass(frozen=True)
class Source:
    """A data set to be read: its spec, its possible places, and the caller's options."""

    spec: DataSpec
    imgsz: int | None = None
    cache: bool | None = None
    download: bool = True
    problems: Problems = field(default_factory=Problems)
    known: Mapping[str, Any] = field(
        default_factory=dict
    )  # the preparation that loaded weights were trained with

    @property
    def task(self) -> str:
        """The task that the data are for."""
        return self.spec.task

    def folders(self) -> list[Path]:
        """The existing folders among those that `path:` may mean."""
        return [folder for folder in places.candidates(self.spec) if folder.is_dir()]

    def look(self, *names: str) -> Path | None:
        """The first of these files or folders that exists, in the order of the names; None if none does.

        A name that leads out of the folder, as exported sets have it, is also looked up inside.
        """
        inside = [n.replace("../", "") for n in names if n.startswith("../")]
        places_ = (folder / name for name in (*names, *inside) for folder in self.folders())
        return next((place for place in places_ if place.exists()), None)

    def need(self, *names: str) -> Path:
        """As `look`, after a download if necessary; DataError says what to fetch, and where to put it."""
        found = self.look(*names)
        if found is None and self.spec.download:
            download.fetch_all(self.spec, places.download_folder(self.spec), self.download, names)
            found = self.look(*names)
        if found is None:
            raise DataError(places.missing_message(self.spec, names))
        return found

    def known_vocabulary(self, key: str = "vocabulary") -> Vocabulary | None:
        """The vocabulary of loaded weights, by whose ids their embeddings go; None if there are none."""
        state = self.known.get(key)
        return restore_vocabulary(state) if state else None

    def order_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names that were found, in the order of loaded weights if they know them all."""
        known = tuple(self.known.get("names", ()))
        return known if known and set(names) <= set(known) else tuple(names)

    def read(self) -> Content:
        """The content of the data set, read as its kind reads it."""
        try:
            content: Content = self.spec.kind.module.read(self, **self.spec.settings)
        except DataError:
            raise
        except Exception as error:  # files that nobody meant as data may fail in any way
            first = (str(error).splitlines() or [""])[0][:200]
            place = self.spec.file or self.spec.name
            raise DataError(f"{place} cannot be read: {type(error).__name__}: {show(first)}") from error
        return content


def _as_is(batch: Batch, generator: torch.Generator) -> Batch:
    return batch


@dataclass(frozen=True)
class Content:
    """A data set that was read: its parts, its facts, and the last step of its batches.

    `view` is the last step of a training batch, `still` of any other one; `preparation` is JSON-serialisable
    and says how a raw sample becomes an input.
    """

    train: Part
    val: Part | None
    facts: Mapping[str, Any]
    names: tuple[str, ...] = ()
    test: Part | None = None
    view: View = _as_is
    still: View = _as_is
    preparation: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None  # of inputs
    target_vocabulary: Vocabulary | None = None


def tensor_content(
    source: Source,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor] | None,
    names: Sequence[str],
    crop: int = 0,
    flip: bool = False,
) -> Content:
    """The content of whole tensors of uint8 images (N, C, H, W) and classes (N,)."""
    for x, y in filter(None, (train, val)):
        if not len(x) or len(x) != len(y) or int(y.min()) < 0:
            where = source.spec.file or source.spec.name
            raise DataError(f"{where}: {len(x)} images and {len(y)} labels from 0 do not belong together")
    highest = max(int(part[1].max()) for part in (train, val) if part)
    if highest >= len(names):
        where = source.spec.file or source.spec.name
        raise DataError(f"{where}: nc is {len(names)}, but there are labels up to {highest}; correct nc")
    size = source.imgsz or train[0].shape[-1]
    for x, _ in filter(None, (train, val)) if source.imgsz else ():
        refuse_large(SCALED * len(x) * x.shape[1] * size * size, f"imgsz={size} and {len(x):,} images")
    parts = [Tensors(resize(p[0], size), p[1].long()) if p else None for p in (train, val)]
    assert parts[0] is not None
    return image_content(source, parts[0], parts[1], parts[0].x, names, crop, flip)


def image_content(
    source: Source, train: Part, val: Part | None, sample: Tensor, names: Sequence[str], crop: int = 0,
    flip: bool = False,
) -> Content:  # fmt: skip
    """The content of parts of uint8 images, normalised by the statistics of a sample of the training part.

    Loaded weights keep the normalisation that they were trained with.
    """
    channels, size = sample.shape[1], sample.shape[-1]
    known = source.known
    if known.get("input") == "image" and known.get("channels") == channels:
        mean, std = tuple(known["mean"]), tuple(known["std"])
    else:
        mean, std = statistics(sample)
    pixels = Pixels(mean, std, crop, flip)
    facts = {"classes": len(names), "channels": channels, "size": size}
    preparation = {"input": "image", **facts, "mean": list(mean), "std": list(std), "names": list(names)}
    return Content(train, val, facts, tuple(names), None, pixels, pixels.still(), preparation)


def rename_classes(content: Content, spec: DataSpec) -> Content:
    """The content with the class names of its YAML; DataError if their number does not match."""
    if not spec.names or set(spec.names) == set(content.names) or "classes" not in content.facts:
        return content
    found, given = int(content.facts["classes"]), len(spec.names)
    if given != found:
        raise DataError(
            f"{spec.file or 'data'}: nc (or the number of names) is {given}, but the data have {found} "
            f"classes{': ' + ', '.join(content.names[:8]) if content.names else ''}; correct the YAML"
        )
    preparation = {**content.preparation, "names": list(spec.names)}
    return replace(content, names=spec.names, preparation=preparation)
