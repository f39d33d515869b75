"""One text per line, one file per class: the form of the sentence polarity set (Pang and Lee 2005).

`files` are in the order of `names`. The share `held_out` of every class is used for validation, always the
same lines. The vocabulary is the words that occur at least `least` times; `length` cuts long texts (0:
uncut).
"""

from __future__ import annotations

import numpy as np

from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.corpora import Excerpt, Labelled, read_lines, sentiment_content
from unvanish.lab.data.limits import check_encoding, find_below
from unvanish.lab.data.part import hold_out
from unvanish.lab.data.places import unpack
from unvanish.lab.data.problems import DataError

TASKS = ("sentiment",)


def read(
    source: Source,
    *,
    files: tuple[str, ...] = (),
    archive: str = "",
    encoding: str = "",
    held_out: float = 0.1,
    least: int = 2,
    most: int = 0,
    length: int = 0,
) -> Content:
    """The lines of the files; the class is the file's place in the list."""
    if len(files) < 2:
        raise DataError(f"{source.spec.name}: `files` must name a file for each class, at least two")
    whole = Labelled.none()
    for label, name in enumerate(files):
        file = source.look(name)
        if file is None and archive:
            file = next(find_below(unpack(source.need(archive)), name), None)
        file = file or source.need(name)
        for number, line in enumerate(read_lines(file, check_encoding(encoding), source.problems), 1):
            if line is not None:
                whole.add(line, label, file, number)
    held, kept = hold_out(np.array(whole.labels), held_out)
    names = source.spec.names or files
    train, val = whole.pick(kept.tolist()), whole.pick(held.tolist())
    return sentiment_content(source, train, val, names, Excerpt(least, most, length))
