"""What torch itself warns of while the model runs, if it concerns gradients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from unvanish.probes.lines import find_line
from unvanish.probes.shared_changes import LISTENERS, ask

ABOUT = re.compile(r"gradient|requires_grad|\.grad\b|backward hook", re.IGNORECASE)
ELSEWHERE = (  # what another reading says, with its place; and what the examination itself brings about
    "Converting a tensor with requires_grad=True to a scalar",
    "To copy construct from a tensor",
    "Full backward hook is firing when gradients are computed",
)


@contextmanager
def listen() -> Iterator[dict[str, str]]:
    """What is warned of in this thread about gradients, with its line, while warnings are off."""
    heard: dict[str, str] = {}

    def hear(text: str) -> None:
        text = " ".join(text.split())
        if text not in heard and ABOUT.search(text) and not text.startswith(ELSEWHERE):
            heard[text] = find_line()

    with ask(LISTENERS, hear):
        yield heard
