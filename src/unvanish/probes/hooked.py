"""Gradients that a hook of the user's sets to zero: of a parameter, a tensor, or a module.

Notable: what the graph sends to a node and what arrives there differ only by hooks. A node to which numbers
other than zero were sent, and at which zeros arrive, is where one does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unvanish.core.facts import HookFacts
from unvanish.probes.backward import GradientFlow
from unvanish.probes.events import Operation
from unvanish.probes.faults import HOOK, find_starving
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph


def find_hooks(
    graph: Graph,
    again: GradientFlow,
    watched: Forward,
    starving: Mapping[int, str],
    leaves: Mapping[str, Any],
) -> list[HookFacts]:
    """The hooks because of which parameters get zeros; `starving`: these, by node; `leaves`: by name."""
    found: list[HookFacts] = []
    for place, name in starving.items():
        hooked = place in again.sent and bool(leaves[name]._backward_hooks)
        if hooked and again.logs.get(name) == -math.inf:
            found.append({"path": name, "on": "parameter", "line": "", "starves": (name,)})
    for node in again.silenced:
        if graph.nodes[node] not in watched.hooks and type(graph.nodes[node]).__name__ != HOOK:
            continue  # what was sent there cancels
        names = find_starving(graph, node, starving)
        if names:
            found.append(_describe(graph, node, watched, tuple(sorted(names))))
    for node, below in again.killed:
        if type(graph.nodes[node]).__name__ == HOOK and (names := find_starving(graph, below, starving)):
            found.append(_describe(graph, node, watched, tuple(sorted(names))))
    return _drop_covered(sorted(found, key=lambda hook: -len(hook["starves"])))


def _describe(graph: Graph, node: int, watched: Forward, names: tuple[str, ...]) -> HookFacts:
    owner = watched.owner(graph.nodes[node]._sequence_nr())
    line = watched.hooks.get(graph.nodes[node], "")
    made = {n: call.path for call in watched.module_calls for n, _ in call.outputs}  # the hook comes after
    below = [made[n] for n, _ in graph.nodes[node].next_functions if not line and n in made]
    call = owner.caller if isinstance(owner, Operation) else owner
    path = below[0] if below and not call.module._backward_hooks else call.path
    on: Any = "tensor" if line else "module"
    return {"path": path, "on": on, "line": line, "starves": names}


def _drop_covered(hooks: Sequence[HookFacts]) -> list[HookFacts]:
    """Those that starve something that no hook before them does."""
    seen: set[str] = set()
    kept = []
    for hook in hooks:
        if not seen.issuperset(hook["starves"]):
            kept.append(hook)
            seen |= {*hook["starves"]}
    return kept
