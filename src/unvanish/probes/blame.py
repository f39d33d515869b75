"""Of all places that leave the graph, those without which a parameter would get its gradient.

Notable: a cut is to blame if its value comes back at an operation that the loss reaches. What lies behind two
cuts in a row is counted with the one that is further from the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unvanish.core.facts import GraphCut
from unvanish.probes.departures import Departure
from unvanish.probes.graph import Node
from unvanish.probes.passes import BackwardPass, ForwardPass, Specimen


def find_blame(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> list[GraphCut]:
    """The facts of every cut of the forward, with the parameters that each keeps from the loss."""
    departures = forward.watched.departures
    facts = [cut.facts for cut in departures]
    lost = _find_lost(specimen, forward, backward)
    if not lost:
        return facts
    return _blame(facts, lost, forward, backward) + _find_others(lost, forward)


def _blame(
    facts: list[GraphCut], lost: Mapping[int, str], forward: ForwardPass, backward: BackwardPass
) -> list[GraphCut]:
    """The facts, with the parameters that each cut keeps from the loss."""
    departures = forward.watched.departures
    regained = Regained(dict(lost), set(backward.graph.index) if backward.graph else set())
    last = forward.watched.departures.carries(forward.loss)
    waiting = dict(enumerate(departures))
    behind = 0
    while waiting and regained.lost:
        found = [k for k, cut in waiting.items() if k in last or any(n in regained.nodes for n in cut.back)]
        if not found:
            break
        freed = {k: regained.find_parameters(waiting[k]) for k in found}
        for k in found:
            own = facts[k]
            facts[k] = {**own, "frees": tuple(sorted(freed[k])), "behind": behind}
            regained.enter(waiting.pop(k))
        regained.drop(set().union(*freed.values()))
        last = frozenset()
        behind += 1
    return facts


def _find_lost(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> dict[int, str]:
    """The parameters that an operation read and the loss does not reach, by id.

    A re-entrant checkpoint gives its parameters their gradient past the graph.
    """
    flow = backward.flow
    places = {} if flow is None else flow.places
    given = set() if flow is None else {n for n, g in flow.gradients.items() if g is not None}
    sleepers, used = forward.watched.parameters.find_sleepers(), forward.watched.used
    return {
        id(p): name
        for name, p in specimen.parameters.items()
        if name in used
        and ((p.requires_grad and places.get(name) is None and name not in given) or name in sleepers)
    }


def _find_others(lost: Mapping[int, str], forward: ForwardPass) -> list[GraphCut]:
    """What is no operation: requires_grad turned off meanwhile, or turned on at a loss without a graph."""
    named, order = forward.watched.parameters, len(forward.watched.operations)
    found: list[GraphCut] = []
    sleepers = sorted(named.find_sleepers() & {*lost.values()})
    for line in dict.fromkeys(named.lines.get(n, "") for n in sleepers):
        own = tuple(n for n in sleepers if named.lines.get(n, "") == line)
        path = own[0].rpartition(".")[0]
        found.append(_cut(path, "asleep", order, line, own))
    if forward.loss.requires_grad and forward.root.grad_fn is None:
        found.append(_cut("the loss", "leaf", order, "", tuple(sorted(lost.values()))))
    return found


def _cut(path: str, how: str, order: int, line: str, frees: tuple[str, ...]) -> GraphCut:
    behind = 1 if how == "leaf" else 0
    return {
        "path": path,
        "call": 0,
        "how": how,
        "order": order,
        "line": line,
        "frees": frees,
        "behind": behind,
    }


@dataclass
class Regained:
    """What the loss would reach: the parameters still lost, by id, and the nodes found so far."""

    lost: dict[int, str]
    nodes: set[Node]

    def find_parameters(self, cut: Departure) -> set[str]:
        """The lost parameters that the value of a cut was made of."""
        names = {*self.lost.values()}
        seen = set(self._below(cut.sources))
        owned = (getattr(node, "variable", None) for node in seen)
        return (cut.names & names) | {self.lost[id(v)] for v in owned if v is not None and id(v) in self.lost}

    def enter(self, cut: Departure) -> None:
        """The loss would reach what the cut's value was made of."""
        self.nodes |= set(self._below(cut.sources))

    def drop(self, names: set[str]) -> None:
        """These are counted."""
        self.lost = {i: name for i, name in self.lost.items() if name not in names}

    def _below(self, start: Iterable[Node]) -> Iterable[Node]:
        """The nodes below some, down to those that the loss reaches."""
        seen: set[Node] = set()
        stack = [n for n in start if n not in self.nodes]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            stack += [b for b, _ in node.next_functions if b is not None and b not in self.nodes]
        return seen
