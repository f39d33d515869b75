"""The blocks: one idea per file, each file of this folder; plain modules that also work without YAML.

Notable: what a block must have for the builder:
- Its constructor's first parameter is `width_in: int`, the channels of its (first) input, or
  `widths_in: Sequence[int]` if it joins several. Channels are dimension 1 of (B, C, H, W), the last one of
  (B, T, C) and (B, C). Token ids have none: an embedding takes `vocabulary` first.
- Parameters named activation, norm, depth (residual branches of the net), variant (the scale's name), legacy
  (a detector of C2f and C3 blocks), classes, vocabulary, target_vocabulary, length, features, outputs, size
  are filled in from the YAML's top level or the data if a row does not give them.
- `repeats: n` stacks n of them, unless the constructor has a parameter `repeats`; only the first one gets the
  `stride`. Of several inputs the first passes through all blocks, the others go to each.
- `CLASSIC` holds defaults of arguments that differ in a file with backbone and head, whose users expect them.
- `SCALED` names the arguments that the scale's width multiplies ("out" by default); `BRANCHES` is the number
  of residual branches of one block (default 0).
- `place(self, strides)` is called when the net is built, with the stride of each input in pixels of the
  image.
- `initialise(self, begin)` holds a block's own initialisation (see `unvanish.lab.models.initialise`).
- Its file's docstring names the paper, or says "No paper". Its file's `EXAMPLES` hold a call of it, on which
  the contract of blocks is tested; what cannot be called like that stands in `NO_EXAMPLE`, with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache

from torch import nn

from unvanish.core import registry


@cache
def blocks() -> Mapping[str, type[nn.Module]]:
    """Every block of this folder by its class name, file by file in alphabetical order."""
    found: dict[str, type[nn.Module]] = {}
    for _, file in registry.modules(__name__, __path__):
        found |= {name: c for name, c in vars(file).items() if _is_block(c, file.__name__)}
    return found


def _is_block(candidate: object, home: str) -> bool:
    return (
        inspect.isclass(candidate)
        and issubclass(candidate, nn.Module)
        and candidate.__module__ == home
        and not candidate.__name__.startswith("_")
    )
