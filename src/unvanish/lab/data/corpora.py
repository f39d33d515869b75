"""From texts to content: ids, vocabularies built from the training part, facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unvanish.core.registry import suggest
from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.encoding import find_text, whole_lines
from unvanish.lab.data.limits import check_encoding, unzip
from unvanish.lab.data.problems import DataError, Problems
from unvanish.lab.data.texts import Pairs, Texts
from unvanish.lab.data.vocabulary import BytePairs, Vocabulary, Words

SORTS = ("pairs", "words")


@dataclass(frozen=True)
class Labelled:
    """Texts, their classes, and their places (file, line)."""

    texts: list[str]
    labels: list[int]
    places: list[tuple[str, int]]

    @classmethod
    def none(cls) -> Labelled:
        """An empty one, to be filled by `add`."""
        return cls([], [], [])

    def add(self, text: str, label: int, file: Path | str, line: int) -> None:
        """Add one text."""
        self.texts.append(text)
        self.labels.append(label)
        self.places.append((str(file), line))

    def pick(self, indices: Sequence[int]) -> Labelled:
        """Those of these indices."""
        parts = (self.texts, self.labels, self.places)
        return Labelled(*([part[i] for i in indices] for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Excerpt:
    """How texts become ids: words that occur `least` times or more, `most` of them, `length` per text."""

    least: int
    most: int
    length: int


def sentiment_content(
    source: Source, train: Labelled, val: Labelled, names: Sequence[str], cut: Excerpt
) -> Content:
    """Labelled texts as word ids; the vocabulary is that of loaded weights, else the training part's."""
    vocabulary = source.known_vocabulary() or Words.of(train.texts, cut.least, cut.most)
    first, second = (encode_texts(p, vocabulary, cut.length, source.problems) for p in (train, val))
    longest = max(int(part.lengths.max(initial=1)) for part in (first, second))
    facts = {"classes": len(names), "vocabulary": len(vocabulary), "length": longest}
    preparation = {
        "input": "text",
        "vocabulary": vocabulary.state(),
        "length": cut.length,
        "names": list(names),
    }
    return Content(first, second, facts, tuple(names), preparation=preparation, vocabulary=vocabulary)


def encode_texts(part: Labelled, vocabulary: Vocabulary, length: int, problems: Problems) -> Texts:
    """Labelled texts as ids, cut to `length` (0: uncut); empty ones are reported and left out."""
    rows, labels = [], []
    for ids, label, place in zip(vocabulary.encode_all(part.texts), part.labels, part.places, strict=True):
        if not ids:
            problems.add(*place, "empty text", "it contains no word")
            continue
        rows.append(ids[:length] if length else ids)
        labels.append(label)
    return Texts(rows, labels)


@dataclass(frozen=True)
class Tokens:
    """How sentences become ids: `sort` is pairs or words; `joint`: both languages share one vocabulary."""

    sort: str
    size: int
    joint: bool
    lower: bool

    def vocabulary(self, texts: Sequence[str]) -> Vocabulary:
        """The vocabulary of texts."""
        if self.sort not in SORTS:
            near = suggest(self.sort, SORTS)
            raise DataError(f"tokens cannot be {self.sort!r}{near}; they are {' or '.join(SORTS)}")
        if self.sort == "words":
            return Words.of(texts, 2, self.size, self.lower)
        return BytePairs.of(texts, self.size, self.lower)


Sentences = tuple[list[str], list[str]]


def translation_content(
    source: Source, train: Sentences, val: Sentences | None, test: Sentences | None, tokens: Tokens
) -> Content:
    """Pairs of sentences as ids; the vocabularies are those of loaded weights, else the training part's."""
    one, other = source.known_vocabulary(), source.known_vocabulary("target_vocabulary")
    if one is not None and other is not None:
        first, second = one, other
    elif tokens.joint:
        first = second = tokens.vocabulary([*train[0], *train[1]])
    else:
        first, second = tokens.vocabulary(train[0]), tokens.vocabulary(train[1])
    parts = [
        Pairs(first.encode_all(p[0]), second.encode_all(p[1])) if p and p[0] else None
        for p in (train, val, test)
    ]
    if parts[0] is None:
        raise DataError("there is no pair of sentences to train with")
    longest = max(int(max(p.sources.lengths.max(), p.targets.lengths.max())) for p in parts if p) + 1
    facts = {"vocabulary": len(first), "target_vocabulary": len(second), "length": longest}
    preparation = {
        "input": "text",
        "vocabulary": first.state(),
        "target_vocabulary": second.state(),
        "ends": True,
    }
    return Content(
        parts[0],
        parts[1],
        facts,
        (),
        parts[2],
        preparation=preparation,
        vocabulary=first,
        target_vocabulary=second,
    )


def read_lines(file: Path, encoding: str, problems: Problems) -> list[str | None]:
    """The lines of a file, plain or gzip; None for those that are not text in `encoding` (empty: found)."""
    try:
        content = unzip(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    lines = whole_lines(file, find_text(file, content, encoding, problems), encoding, problems)
    return [None if line is None else line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]


def read_pairs(files: tuple[Path, Path], encoding: str, problems: Problems) -> Sentences:
    """The pairs of two parallel files; pairs with an empty or broken side are reported and left out."""
    sides = [read_lines(file, check_encoding(encoding), problems) for file in files]
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{files[0]} has {len(sides[0])} lines, {files[1]} {len(sides[1])}: parallel files need the same "
            f"number"
        )
    pairs: Sentences = ([], [])
    for number, (one, other) in enumerate(zip(*sides, strict=True), 1):
        if one and other:
            pairs[0].append(one)
            pairs[1].append(other)
        elif one is not None and other is not None:
            problems.add(files[0] if not one else files[1], number, "empty line", "its pair is left out")
    return pairs
