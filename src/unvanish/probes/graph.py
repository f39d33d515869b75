"""The autograd graph above the parameters and the inputs: its nodes in order, its cuts, and its segments.

Notable:
- A node is a cut of a target (a dominator, seen from the loss) if in a topological order no edge of a path to
  the target jumps over it; one sweep finds them all.
- Below a cut begins a segment. A node that is reached from one segment only belongs to it; what is reached
  from several (tied weights, a shared mask) belongs to none. So a gradient may be rescaled at a cut, and its
  size is still known exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

Node = torch.autograd.graph.Node


@dataclass(frozen=True)
class Graph:
    """Nodes from the loss (0) down, every edge leading to a larger index; `below[i]` are the next nodes."""

    nodes: tuple[Node, ...]
    below: tuple[tuple[int, ...], ...]
    index: dict[Node, int] = field(repr=False)

    @cached_property
    def leaves(self) -> dict[int, int]:
        """The index of the node that accumulates the gradient of a leaf, by the leaf's id."""
        nodes: Iterable[tuple[int, Any]] = enumerate(self.nodes)
        return {id(n.variable): i for i, n in nodes if not n.next_functions and hasattr(n, "variable")}

    def place(self, tensor: torch.Tensor) -> int | None:
        """The index of the node at which a tensor's gradient arrives; None if the graph does not reach it."""
        if tensor.grad_fn is None:
            return self.leaves.get(id(tensor))
        return self.index.get(tensor.grad_fn)

    def reaching(self, target: int) -> list[bool]:
        """Which nodes have a path to the target, itself included."""
        found = [False] * len(self.nodes)
        found[target] = True
        for i in range(target - 1, -1, -1):
            for j in self.below[i]:
                if found[j]:
                    found[i] = True
                    break
        return found

    def cuts(self, target: int) -> list[int]:
        """The nodes that every path from the loss to the target crosses, in order, both ends included."""
        reaching = self.reaching(target)
        if not reaching[0]:
            return []
        found, furthest = [], 0
        for i in range(target + 1):
            if not reaching[i]:
                continue
            if furthest <= i:
                found.append(i)
            furthest = max([furthest, *[j for j in self.below[i] if reaching[j]]])
        return found

    def segments(self, cuts: Sequence[int]) -> list[int]:
        """For every node, the number of the cut it hangs below (cut k itself: k), -1 if there are several."""
        number = {c: k for k, c in enumerate(cuts)}
        found: list[int | None] = [None] * len(self.nodes)
        for i, below in enumerate(self.below):
            own = number.get(i, found[i])
            found[i] = own if own is not None else -1
            for j in below:
                found[j] = own if found[j] in (None, own) else -1
        return [-1 if s is None else s for s in found]

    def depends(self, above: Node, below: Node) -> bool:
        """Whether a path leads from one node down to the other."""
        start, goal = self.index.get(above), self.index.get(below)
        if start is None or goal is None or goal < start:
            return False
        seen, stack = set(), [start]
        while stack:
            i = stack.pop()
            if i == goal:
                return True
            fresh = [j for j in self.below[i] if j <= goal and j not in seen]
            seen.update(fresh)
            stack += fresh
        return False


def walk(root: Node) -> Graph:
    """The graph below a node, topologically sorted (Kahn 1962)."""
    waiting: dict[Node, int] = {root: 0}
    edges: dict[Node, list[Node]] = {}
    stack = [root]
    while stack:
        node = stack.pop()
        edges[node] = [below for below, _ in node.next_functions if below is not None]
        for below in edges[node]:
            if below not in waiting:
                waiting[below] = 0
                stack.append(below)
            waiting[below] += 1
    order: list[Node] = []
    ready = [root]
    while ready:
        node = ready.pop()
        order.append(node)
        for below in edges[node]:
            waiting[below] -= 1
            if not waiting[below]:
                ready.append(below)
    index = {node: i for i, node in enumerate(order)}
    return Graph(tuple(order), tuple([tuple([index[b] for b in edges[n]]) for n in order]), index)
