"""Gradients that the forward or the loss takes itself (`torch.autograd.grad`): of what, and the second ones.

Notable:
- A second derivative is one whose outputs were made of a first one. If it is exactly zero although the first
  is not, and an activation of straight pieces ran, the network has no curvature to give.
- What a gradient is taken of keeps no gradient itself if the loss reads the gradient alone, as the last bias
  under a derivative by the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unvanish.core.facts import CurvatureFacts
from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.graph import Graph
from unvanish.probes.handles import Node
from unvanish.probes.lines import find_line

STRAIGHT = operations.RECTIFIERS | {"leaky_relu", "prelu", "rrelu", "hardtanh", "hardsigmoid"}


@dataclass
class InnerGradients:
    """What one forward differentiates; `made`: the nodes of first derivatives that are not zero."""

    wanted: set[int] = field(default_factory=set)  # ids of what a gradient is taken by
    made: list[Node] = field(default_factory=list)
    sources: list[Node] = field(default_factory=list)  # of what they were taken
    flat: list[CurvatureFacts] = field(default_factory=list)

    def ask(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """A gradient is about to be taken."""
        wanted = args[1] if len(args) > 1 else kwargs.get("inputs", ())
        self.wanted |= {id(t) for t in tensors_in(wanted, 2)}

    def see(self, call: OperationCall, path: str, ran: Sequence[Operation]) -> None:
        """A gradient was taken, after the operations that ran so far; only one with a graph counts."""
        found = [t for t in tensors_in(call.result, 2) if t.grad_fn is not None]
        outputs = call.args[0] if call.args else call.kwargs.get("outputs", ())
        above = [t.grad_fn for t in tensors_in(outputs, 2) if t.grad_fn is not None]
        if not found:
            return
        if any(bool(t.detach().any()) for t in found):
            self.made += [t.grad_fn for t in found if t.grad_fn is not None]
            self.sources += above
            return
        kinds = [o for o in ran if o.family == "activation"]
        if self.made and any(o.kind in STRAIGHT for o in kinds) and _find_below(above) & {*self.made}:
            straight = dict.fromkeys((o.caller.path, o.kind) for o in kinds if o.kind in STRAIGHT)
            self.flat.append({"path": path, "line": find_line(), "activations": tuple(straight)})

    def find_unread(self, lost: Mapping[int, str]) -> set[str]:
        """The lost parameters, by id, of whose values only derivatives are read."""
        below = _find_below(self.sources) if self.made and lost else set()
        return {lost[id(v)] for n in below if id(v := getattr(n, "variable", None)) in lost}

    def bears(self, graph: Graph, target: Node) -> bool:
        """Whether the loss reaches a node through one of these gradients."""
        return any(graph.depends(node, target) for node in self.made)


def _find_below(start: Iterable[Node]) -> set[Node]:
    seen, stack = set[Node](), [*start]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [b for b, _ in node.next_functions if b is not None]
    return seen
