"""Symptoms in the words of those who have them: a page each, found by its words.

Notable: a page is a Markdown file of this folder: a title, a line of words, what it looks like, where to look
in which order (the codes of rules), a command, the cure, when it is normal.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib.resources import files

PASSED_OVER = re.compile(
    "an?|and|are|as|at|but|by|do|does|for|from|ha(s|ve)|in?|it?s?|me|my|not?|o[fnr]|so|th(at|e|en|ere|is)|too?"
    "|very|wh(en|y)|with"
)


@dataclass(frozen=True)
class Symptom:
    """A page: its file's name, its title, the words it is found by, its text."""

    name: str
    title: str
    words: frozenset[str]
    page: str

    @property
    def codes(self) -> tuple[str, ...]:
        """The rules that the page names, in its order, each once."""
        return tuple(dict.fromkeys(re.findall(r"\b[A-Z]{3}\d{3}\b", self.page)))


@functools.cache
def symptoms() -> dict[str, Symptom]:
    """All pages by name."""
    folder = files(__name__)
    pages = sorted((p for p in folder.iterdir() if p.name.endswith(".md")), key=lambda p: p.name)
    return {p.name[:-3]: read_symptom(p.name[:-3], p.read_text(encoding="utf-8")) for p in pages}


def read_symptom(name: str, text: str) -> Symptom:
    """A page from its text; ValueError if it lacks its title or its words."""
    title, _, rest = text.partition("\n")
    words, _, page = rest.lstrip().partition("\n")
    if not title.startswith("# ") or not words.startswith("words: "):
        raise ValueError(f"{name}.md begins with no title and words")
    found = split_words(f"{title} {words.removeprefix('words: ')}")
    return Symptom(name, title[2:].strip(), found, page.strip() + "\n")


def find_symptoms(text: str) -> list[Symptom]:
    """The pages that share most words with a text; first those whose titles do, and those of few words."""
    asked = split_words(text)
    shared = {page: len(asked & page.words) for page in symptoms().values()}
    most = max(shared.values(), default=0)
    best = [page for page, count in shared.items() if count == most > 0]
    return sorted(best, key=lambda page: (-len(asked & split_words(page.title)), len(page.words)))


def split_words(text: str) -> frozenset[str]:
    """The words of a text that say something, in small letters, without the endings of plural and tense."""
    words = re.findall(r"[a-z0-9']+", text.lower().replace("'", ""))
    return frozenset(_cut_ending(word) for word in words if not PASSED_OVER.fullmatch(word))


def _cut_ending(word: str) -> str:
    for ending in ("ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word
