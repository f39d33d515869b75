"""What a model's forward and a loss take, read from their signatures.

Notable: a signature that cannot be read (a scripted module) takes anything, so nothing is refused for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Takes:
    """What may be passed: `places` by position, `names` as keywords, `needed` without a default.

    `more`, `others`: any further positions or keywords; `text`: the parameters as they are written.
    """

    places: tuple[str, ...]
    names: frozenset[str]
    needed: frozenset[str]
    more: bool = False
    others: bool = False
    text: str = "(...)"

    def fits(self, count: int) -> bool:
        """Whether so many positional arguments are a complete call."""
        given = self.places[:count]
        return (count <= len(self.places) or self.more) and self.needed <= set(given)

    def has(self, name: str) -> bool:
        """Whether a keyword is taken."""
        return self.others or name in self.names

    def accepts(self, names: Collection[str]) -> bool:
        """Whether these keywords are a complete call."""
        return self.needed <= set(names) and all(map(self.has, names))

    @property
    def most(self) -> float:
        """How many positional arguments may be given."""
        return float("inf") if self.more else len(self.places)


ANYTHING = Takes((), frozenset(), frozenset(), True, True)


def read_forward(model: nn.Module) -> Takes:
    """What the forward of a model takes."""
    return ANYTHING if is_without_forward(model) else read_signature(model.forward)


def is_without_forward(model: nn.Module) -> bool:
    """Whether a class leaves out the forward, as those that only have a training step."""
    return getattr(type(model), "forward", None) is nn.Module.forward


def read_signature(function: Callable[..., Any]) -> Takes:
    """What a function takes; anything if that cannot be read."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ANYTHING
    single = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    kinds = {p.kind for p in parameters}
    return Takes(
        tuple(p.name for p in single if p.kind in POSITIONAL),
        frozenset(p.name for p in single if p.kind in NAMED),
        frozenset(p.name for p in single if p.default is p.empty),
        inspect.Parameter.VAR_POSITIONAL in kinds,
        inspect.Parameter.VAR_KEYWORD in kinds,
        f"({', '.join(str(p.replace(annotation=p.empty)) for p in parameters)})",
    )
