"""What torch itself warns of while the model runs, if it concerns gradients."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from unvanish.core.facts import WarningFacts
from unvanish.probes.lines import TORCH, name_line

ABOUT = re.compile(r"gradient|requires_grad|\.grad\b|backward hook", re.IGNORECASE)
ELSEWHERE = (  # what another reading says, with its place; and what the examination itself brings about
    "Converting a tensor with requires_grad=True to a scalar",
    "To copy construct from a tensor",
    "Full backward hook is firing when gradients are computed",
)


@contextmanager
def listen() -> Iterator[list[warnings.WarningMessage]]:
    """Warnings are collected and not shown."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield heard


def choose(heard: Iterable[warnings.WarningMessage]) -> list[WarningFacts]:
    """Those about gradients, each once."""
    found: dict[str, WarningFacts] = {}
    for warning in heard:
        text = " ".join(str(warning.message).split())
        if ABOUT.search(text) and not text.startswith(ELSEWHERE):
            own = not warning.filename.startswith(TORCH)
            line = name_line(warning.filename, warning.lineno) if own else ""
            found.setdefault(text, {"text": text, "line": line})
    return list(found.values())
