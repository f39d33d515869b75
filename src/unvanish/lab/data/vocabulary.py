"""From text to ids and back: characters, words, or byte pairs; ids 0 to 3 are padding, begin, end, unknown.

Notable:
- A vocabulary is built from the training part alone, deterministically: by count, then by spelling.
- It is data (`state()` is JSON-serialisable), so a checkpoint can contain it.
- Byte pairs (Sennrich et al. 2016) are those of the tokenizers library.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unvanish.lab.data.places import cache_folder, write_cache
from unvanish.lab.data.problems import DataError
from unvanish.lab.tokens import PAD, SPECIAL, UNKNOWN

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


class Vocabulary(ABC):
    """A map from text to ids and back."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; the special ones are left out."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that `restore_vocabulary` needs, JSON-serialisable."""

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts."""
        return [self.encode(text) for text in texts]


class Characters(Vocabulary):
    """One id per character."""

    def __init__(self, characters: Sequence[str]) -> None:
        self.entries = [*SPECIAL, *characters]
        self.ids = {entry: i for i, entry in enumerate(self.entries)}

    @classmethod
    def of(cls, text: str) -> Characters:
        """The characters of a text, in the order of their code points."""
        return cls(sorted(set(text)))

    def __len__(self) -> int:
        return len(self.entries)

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(c, UNKNOWN) for c in text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.entries[i] for i in ids if i >= len(SPECIAL))

    def state(self) -> dict[str, Any]:
        return {"sort": "characters", "entries": self.entries[len(SPECIAL) :]}


class Words(Vocabulary):
    """One id per word or sign, in lower case if `lower`."""

    def __init__(self, words: Sequence[str], lower: bool = True) -> None:
        self.entries, self.lower = [*SPECIAL, *words], lower
        self.ids = {entry: i for i, entry in enumerate(self.entries)}

    @classmethod
    def of(cls, texts: Iterable[str], least: int = 2, most: int = 0, lower: bool = True) -> Words:
        """The words that occur at least `least` times, the `most` frequent of them (0: all)."""
        counts = Counter(word for text in texts for word in words(text, lower))
        kept = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))
        return cls(kept[: most - len(SPECIAL)] if most else kept, lower)

    def __len__(self) -> int:
        return len(self.entries)

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(word, UNKNOWN) for word in words(text, self.lower)]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(self.entries[i] for i in ids if i >= len(SPECIAL) or i == UNKNOWN)

    def state(self) -> dict[str, Any]:
        return {"sort": "words", "lower": self.lower, "entries": self.entries[len(SPECIAL) :]}


class BytePairs(Vocabulary):
    """One id per piece of a word, merged from the most frequent pairs of bytes."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def of(cls, texts: Iterable[str], size: int, lower: bool = False) -> BytePairs:
        """A vocabulary of at most `size` pieces, trained on texts and cached."""
        from tokenizers import Tokenizer

        listed = list(texts)
        place = _cache_place(listed, size, lower)
        if place.is_file():
            return cls(Tokenizer.from_file(str(place)))
        made = cls(_train_byte_pairs(listed, size, lower))
        write_cache(place, made.tokenizer.to_str().encode())
        return made

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        return str(self.tokenizer.decode([i for i in ids if i != PAD])).strip()

    def state(self) -> dict[str, Any]:
        return {"sort": "pairs", "tokenizer": json.loads(self.tokenizer.to_str())}


def words(text: str, lower: bool = True) -> list[str]:
    """The words and signs of a text: "It's so-so." gives it's, so, -, so, . (full stop)."""
    return WORD.findall(text.lower() if lower else text)


def restore_vocabulary(state: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a `state`."""
    if state["sort"] == "characters":
        return Characters(state["entries"])
    if state["sort"] == "words":
        return Words(state["entries"], state["lower"])
    if state["sort"] == "pairs":
        from tokenizers import Tokenizer

        return BytePairs(Tokenizer.from_str(json.dumps(state["tokenizer"])))
    raise DataError(f"no vocabulary of sort {state['sort']!r}; there are characters, words, pairs")


def _cache_place(texts: Sequence[str], size: int, lower: bool) -> Any:
    digest = hashlib.sha256(f"1|{size}|{lower}\n".encode())
    for text in texts:
        digest.update(text.encode() + b"\n")
    return cache_folder() / "vocabularies" / f"pairs-{digest.hexdigest()[:16]}.json"


def _train_byte_pairs(texts: Sequence[str], size: int, lower: bool) -> Any:
    """A byte-level tokenizer of the tokenizers library, trained on texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lower else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
