"""One long text for language modelling: ids of characters, words or byte pairs in windows of `length`.

`train` names the file, `val` another one; without `val` the last share `held_out` of the text is used for
validation, as usual for tiny Shakespeare (Karpathy 2015).
"""

from __future__ import annotations

import numpy as np

from unvanish.core.registry import suggest
from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.encoding import read_file
from unvanish.lab.data.limits import check_encoding
from unvanish.lab.data.problems import DataError
from unvanish.lab.data.texts import Windows
from unvanish.lab.data.vocabulary import BytePairs, Characters, Vocabulary, Words

TASKS = ("language",)
SORTS = ("characters", "words", "pairs")


def read(
    source: Source,
    *,
    tokens: str = "characters",
    vocabulary: int = 8000,
    length: int = 128,
    held_out: float = 0.1,
    encoding: str = "",
) -> Content:
    """The text of the training file, and of the validation file or of the end of the first."""
    train = text(source, "train", check_encoding(encoding))
    if "val" in source.spec.parts:
        val = text(source, "val", encoding)
    else:
        cut = round(len(train) * (1 - held_out))
        train, val = train[:cut], train[cut:]
    known = source.known_vocabulary() or make_vocabulary(train, tokens, vocabulary)
    parts = [np.array(known.encode(t), np.int32) for t in (train, val)]
    facts = {"vocabulary": len(known), "length": length}
    preparation = {"input": "text", "vocabulary": known.state()}
    return Content(
        Windows(parts[0], length, moving=True),
        Windows(parts[1], length, moving=False) if len(parts[1]) > length else None,
        facts,
        preparation=preparation,
        vocabulary=known,
    )


def text(source: Source, name: str, encoding: str) -> str:
    """The whole text of a part's files, one after the other."""
    files = source.spec.parts.get(name)
    if not files:
        raise DataError(f"{source.spec.name}: `{name}` must name a text file")
    whole = []
    for file in map(source.need, files):
        whole.append(read_file(file, encoding, source.problems))
    return "".join(whole)


def make_vocabulary(train: str, tokens: str, size: int) -> Vocabulary:
    """The vocabulary of the training text."""
    if tokens not in SORTS:
        raise DataError(f"tokens cannot be {tokens!r}{suggest(tokens, SORTS)}; they are {', '.join(SORTS)}")
    if tokens == "characters":
        return Characters.of(train)
    rows = train.splitlines()
    return Words.of(rows, 1, size, lower=False) if tokens == "words" else BytePairs.of(rows, size)
