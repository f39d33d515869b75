"""One text per file, one folder per class: `train/<class>/*.txt` and `test/<class>/*.txt`, the form of IMDB.

The classes are the `names`, or all folders. The vocabulary is the words that occur at least `least` times, at
most `most` of them; texts are cut after `length` words (Maas et al. 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.corpora import Excerpt, Labelled, sentiment_content
from unvanish.lab.data.encoding import read_file
from unvanish.lab.data.kinds.folder import folders
from unvanish.lab.data.part import hold_out
from unvanish.lab.data.problems import DataError

TASKS = ("sentiment",)


def read(
    source: Source,
    *,
    archive: str = "",
    least: int = 5,
    most: int = 25_000,
    length: int = 400,
    held_out: float = 0.1,
) -> Content:
    """The files below the training and validation folders."""
    train_place, val_place = folders(source, archive)
    found = sorted(f.name for f in train_place.iterdir() if f.is_dir())
    names = source.spec.names or source.order_names(found)
    train = read_documents(source, train_place, names)
    if not train.texts:
        raise DataError(f"{train_place} contains no `<class>/*.txt`. {source.problems}")
    if val_place is None:
        held, kept = hold_out(np.array(train.labels), held_out)
        train, val = train.pick(kept.tolist()), train.pick(held.tolist())
    else:
        val = read_documents(source, val_place, names)
    return sentiment_content(source, train, val, names, Excerpt(least, most, length))


def read_documents(source: Source, folder: Path, names: Sequence[str]) -> Labelled:
    """The texts of every class without HTML line breaks; files that are not text are reported."""
    texts = Labelled.none()
    for label, name in enumerate(names):
        files = sorted((folder / name).glob("*.txt"))
        if not files:
            source.problems.add(folder / name, 0, "empty class", "no .txt files in this folder")
        for file in files:
            try:
                text = read_file(file, "", source.problems)
            except DataError as error:
                source.problems.add(file, 0, "broken file", str(error))
                continue
            texts.add(text.replace("<br />", " "), label, file, 0)
    return texts
