"""Texts a line each, a file for each class: the form of the sentence polarity set (Pang and Lee 2005).

`files` are named in the order of `names`. `held_out` of every class serves as validation, always the same
lines. Words that occur at least `least` times are known; `length` cuts long texts (0: not).
"""

from __future__ import annotations

import numpy as np

from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.corpora import Cut, Labelled, lines, sentiment
from unvanish.lab.data.part import split
from unvanish.lab.data.places import unpacked
from unvanish.lab.data.problems import DataError

TASKS = ("sentiment",)


def read(
    source: Source,
    *,
    files: tuple[str, ...] = (),
    archive: str = "",
    encoding: str = "utf-8",
    held_out: float = 0.1,
    least: int = 2,
    most: int = 0,
    length: int = 0,
) -> Content:
    """The lines of the files, the file's place in the list as class."""
    if len(files) < 2:
        raise DataError(f"{source.spec.name}: `files` must name a file for each class, at least two")
    whole = Labelled.none()
    for label, name in enumerate(files):
        file = source.look(name)
        if file is None and archive:
            file = next(iter(sorted(unpacked(source.need(archive)).rglob(name))), None)
        file = file or source.need(name)
        for number, line in enumerate(lines(file, encoding, source.problems), 1):
            if line is not None:
                whole.add(line, label, file, number)
    held, kept = split(np.array(whole.labels), held_out)
    names = source.spec.names or files
    train, val = whole.pick(kept.tolist()), whole.pick(held.tolist())
    return sentiment(source, train, val, names, Cut(least, most, length))
