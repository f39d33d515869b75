"""Parallel texts: two files, plain or gzip, whose n-th lines are translations of each other.

`train`, `val` and `test` name the two files, source first. `tokens` is pairs (byte pairs, Sennrich et al.
2016) or words; each language has its own vocabulary of at most `vocabulary` entries, or both share one
(`joint`). `reverse` swaps the languages.
"""

from __future__ import annotations

from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.corpora import Sentences, Tokens, read_pairs, translation_content
from unvanish.lab.data.problems import DataError

TASKS = ("translate",)


def read(
    source: Source,
    *,
    tokens: str = "pairs",
    vocabulary: int = 8000,
    joint: bool = False,
    lower: bool = False,
    reverse: bool = False,
    encoding: str = "",
) -> Content:
    """The pairs of the files."""
    parts = [part(source, name, encoding, reverse) for name in ("train", "val", "test")]
    if parts[0] is None:
        raise DataError(f"{source.spec.name}: `train` must name two files, source first")
    return translation_content(source, parts[0], parts[1], parts[2], Tokens(tokens, vocabulary, joint, lower))


def part(source: Source, name: str, encoding: str, reverse: bool) -> Sentences | None:
    """The pairs of one part; None if the YAML does not name it, or if test files are missing."""
    files = source.spec.parts.get(name)
    if not files:
        return None
    if len(files) != 2:
        raise DataError(f"{source.spec.name}: {name} must name two files, source first; not {len(files)}")
    if name == "test" and not all(source.look(file) for file in files):
        return None
    one, other = (source.need(file) for file in files)
    pairs = read_pairs((one, other), encoding, source.problems)
    return (pairs[1], pairs[0]) if reverse else pairs
