"""Re-entrant activation checkpointing, as it would run: without a gradient if none of its inputs needs one.

Notable: torch records a re-entrant block only through its inputs. If none of them needs a gradient, the
block's output needs none either, whatever parameters it holds. An examination runs blocks plainly, and lets
the batch require gradients; what is blind in the user's own run stays blind here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unvanish.probes.forward import Forward
from unvanish.probes.graph import Node
from unvanish.probes.shared_changes import BLOCKS, ask


@contextmanager
def run_reentrant_blocks(inputs: Iterable[Tensor], watched: Forward) -> Iterator[None]:
    """Blocks run at once; under no_grad if their inputs need gradients because of `inputs` alone, or none."""
    blind = Blindness({id(x) for x in inputs})

    def run(function: Callable[..., Any], *args: Any) -> Any:
        if any(blind.needs_gradient(a) for a in args if isinstance(a, Tensor)):
            return function(*args)
        with watched.departures.naming("checkpoint", watched.running.path), torch.no_grad():
            return function(*args)

    with ask(BLOCKS, run):
        yield


class Blindness:
    """Whether a tensor would need a gradient if the batch required none; nodes are asked once."""

    def __init__(self, inputs: set[int]) -> None:
        self.inputs = inputs
        self.known: dict[Node, bool] = {}

    def needs_gradient(self, tensor: Tensor) -> bool:
        """Whether a trainable leaf other than the inputs lies below it."""
        if not tensor.requires_grad:
            return False
        if tensor.grad_fn is None:
            return id(tensor) not in self.inputs
        return self._search(tensor.grad_fn)

    def _search(self, start: Node) -> bool:
        seen: set[Node] = set()
        stack = [start]
        while stack:
            node = stack.pop()
            if node in seen or self.known.get(node) is False:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if self.known.get(node) or (leaf is not None and id(leaf) not in self.inputs):
                self.known[start] = True
                return True
            stack += [below for below, _ in node.next_functions if below is not None]
        self.known |= dict.fromkeys(seen, False)
        return False
