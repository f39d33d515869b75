"""States that leave the graph after every step, whatever the step is made of.

Notable:
- The cuts of one line of code are the ends of steps if each is made of what the one before gave back, and the
  graph between them holds nothing of the step before. So a state of which one part is kept (an estimate that
  is refined, beside a hidden state that stays) is none, and neither is what is only logged.
- A step reads each of its weights once. Where it reads them several times, a window was cut on purpose.
- Under no_grad there is no graph to follow: only the calls of cells tell. An iteration to a fixed point, or a
  refinement whose last round alone learns, is no cell of torch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from unvanish.probes.departures import OFF, Departure
from unvanish.probes.events import ModuleCall, Operation
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph, Node

LEAST = 5  # steps
HOWS = ("detach", "data", "numpy", "tolist", "tensor", "item")
LEAF = 1 << 62  # sequence numbers above are those of leaves
Severed = tuple[int, int, str, str]  # steps, how many of them the loss reaches, the module, the line


@dataclass
class End:
    """The end of one step: what left the graph there, and where it came back."""

    order: int  # of the operation that follows
    sources: list[Node] = field(default_factory=list)
    back: set[Node] = field(default_factory=set)

    @property
    def number(self) -> int:
        """The sequence number of the newest source."""
        return max((n._sequence_nr() for n in self.sources), default=-1)


def find_states(watched: Forward, graph: Graph) -> dict[str, Severed]:
    """The states that are cut at each step, by the module that does it."""
    found: dict[str, Severed] = {}
    groups: dict[tuple[str, str, str], list[Departure]] = defaultdict(list)
    for cut in watched.departures:
        if cut.facts["how"] in HOWS and cut.sources:
            groups[cut.facts["how"], cut.facts["path"], cut.facts["line"]].append(cut)
    for (_, path, line), cuts in groups.items():
        ends = _join(cuts) if len(cuts) >= LEAST - 1 else []
        starts = [ends[0].number, *(end.number for end in ends)] if ends else []
        steps = zip(starts, ends, ends[1:], strict=False)
        if len(ends) >= LEAST - 1 and all(_is_step(*step, watched) for step in steps):
            reached = sum(_is_reached(end.sources, watched, graph) for end in ends)
            reached += _is_reached(ends[-1].back, watched, graph)
            if reached:
                cell = _name_cell(ends[0], ends[1], watched) or path
                found.setdefault(cell, (len(ends) + bool(ends[-1].back), reached, path, line))
    return found or _find_blind(watched, graph)


def _name_cell(before: End, end: End, watched: Forward) -> str:
    """The module that reads the state in a step, else the first with weights in it; "" if it is the model."""
    made = watched.operations[before.order : end.order]
    readers = [o for o in made if before.back & {*o.nodes}]
    return next((o.caller.path for o in (*readers, *(o for o in made if o.parameters)) if o.caller.path), "")


def _join(cuts: Iterable[Departure]) -> list[End]:
    """The ends of steps: cuts between which nothing ran are one."""
    ends: list[End] = []
    for cut in cuts:
        if not ends or ends[-1].order != cut.facts["order"]:
            ends.append(End(cut.facts["order"]))
        ends[-1].sources += cut.sources
        ends[-1].back |= {*cut.back}
    return ends


def _is_reached(nodes: Iterable[Node], watched: Forward, graph: Graph) -> bool:
    """Whether the loss reaches some nodes, or further results of the operations that made them."""
    owners = [watched.owner(n._sequence_nr()) for n in nodes]
    more = (n for o in owners if isinstance(o, Operation) for n in o.nodes)
    return any(node in graph.index for node in (*nodes, *more))


def _is_step(first: int, before: End, end: End, watched: Forward) -> bool:
    """Whether an end is made of what the one before gave back, in one step, and of nothing older.

    `first`: the newest node that is older than the step before.
    """
    linked, todo, seen = False, list(end.sources), set[Node]()
    readers = [o for o in watched.operations[before.order : end.order] if before.back & {*o.nodes}]
    while todo:
        node = todo.pop()
        number = node._sequence_nr()
        if node in seen or number <= first or number > LEAF:
            continue
        if number <= before.number:
            return False
        seen.add(node)
        linked = linked or any(watched.owner(number) is reader for reader in readers)
        todo += [n for n, _ in node.next_functions if n is not None]
    return linked and _count_steps(before, end, watched) == 1


def _count_steps(before: End, end: End, watched: Forward) -> int:
    """How often what ran between two ends read the weights that it read least often; 0 if it read none."""
    made = watched.operations[before.order : end.order]
    counts = Counter(name for o in made for name in o.parameters)
    fused = [c for c in watched.module_calls if before.number < c.start <= end.number]
    inputs = [_count_inputs(c, c.module) for c in fused if isinstance(c.module, nn.RNNBase)]
    return max([min(counts.values(), default=0), *inputs])


def _count_inputs(call: ModuleCall, module: nn.RNNBase) -> int:
    """How many steps a recurrent layer was given; 2 if that is not plain to see."""
    x = call.inputs[0] if call.inputs else None
    if not isinstance(x, Tensor) or x.ndim < 2:
        return 2
    return int(x.shape[1 if module.batch_first and x.ndim == 3 else 0])


def _find_blind(watched: Forward, graph: Graph) -> dict[str, Severed]:
    """Cells all of whose calls but the last ran without a graph."""
    calls: dict[str, list[ModuleCall]] = defaultdict(list)
    for call in watched.module_calls:
        if isinstance(call.module, nn.RNNCellBase):
            calls[call.path].append(call)
    cuts = [cut.facts for cut in watched.departures if cut.facts["how"] in OFF]
    return {
        path: (len(own), 1, cuts[0]["path"], cuts[0]["line"])
        for path, own in calls.items()
        if cuts
        and len(own) >= LEAST
        and not any(call.outputs for call in own[:-1])
        and any(node in graph.index for node, _ in own[-1].outputs)
    }
