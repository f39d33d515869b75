"""Parameters that the loss is kept from on purpose: teachers, target networks, what the forward writes to,
and what makes a further result of a module whose main one is read.

Notable:
- A copy lies near the values of a trained part, name by name, and its value comes back above all of that
  part: so a teacher is told from a layer that began as a copy of the next one.
- A part is a target if it ran whole under no_grad and only the loss reads what it made.
- A parameter of whose value the loss reads a derivative alone (the last bias of an energy) is no fault.
- A result is spare if it is made of another result of the same module, which the loss reads: an encoder's
  pooler. A second head beside the first is not: the loss may have forgotten it.
- The last block of a stack makes what the next one would read. Such a part of it is no fault if the loss
  reads its like in all blocks before, and the rest of the block; a whole last block may be a forgotten head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Literal

import torch
from torch import Tensor

from unvanish.core.facts import GraphCut
from unvanish.probes.graph import Graph
from unvanish.probes.measures import norms
from unvanish.probes.passes import BackwardPass, ForwardPass, Specimen

Apart = Literal["", "copy", "written", "target", "spare", "last", "derivative"]
NEAR = (
    0.5  # relative distance of a copy: an average over hundreds of steps lags by less, two draws are at 1.4
)
CHANGED = 1e-12  # relative change of the norm: the forward wrote to it


def find_apart(
    specimen: Specimen, forward: ForwardPass, backward: BackwardPass, cuts: Sequence[GraphCut]
) -> dict[str, Apart]:
    """The reason by the parameter's name, of those that are kept from the loss on purpose."""
    if backward.flow is None or backward.graph is None:
        return {}
    known = cuts[: len(forward.watched.departures.cuts)]  # those after them are no operations
    kept = {name: k for k, cut in enumerate(known) for name in cut["frees"]}
    named, places = specimen.parameters, backward.flow.places
    unread = {n: p for n, p in named.items() if n in places and places[n] is None and n not in kept}
    read = {n for n in named if places.get(n) is not None}
    found: dict[str, Apart] = dict.fromkeys((n for n in unread if _ends_a_stack(n, read, {*named})), "last")
    found |= dict.fromkeys(_find_spare(unread, forward, backward.graph), "spare")
    lost = {id(p): n for n, p in named.items() if places.get(n) is None and n not in kept}
    found |= dict.fromkeys(forward.watched.derivatives.find_unread(lost), "derivative")
    if not kept:
        return found
    living = {n: named[n] for n in read}
    found |= dict.fromkeys(_find_targets(forward, kept), "target")
    found |= dict.fromkeys(_find_copies({n: named[n] for n in kept}, living, kept, forward, backward), "copy")
    found |= dict.fromkeys(_find_written(specimen, kept), "written")
    return found


def _find_spare(unread: Mapping[str, Tensor], forward: ForwardPass, graph: Graph) -> list[str]:
    """The parameters that make a result of a module out of another of its results, which the loss reads."""
    if not unread:
        return []
    edge = torch.autograd.graph.get_gradient_edge
    leaves = {edge(p).node: n for n, p in unread.items() if p.requires_grad}
    found: set[str] = set()
    for call in forward.watched.module_calls:
        results = {node for node, _ in call.outputs}
        main = {node for node in results if node in graph.index}
        for spare in results - main if main else ():
            seen = _list_above(spare, graph)
            if seen & main:
                found |= {leaves[node] for node in seen if node in leaves}
    return sorted(found)


def _ends_a_stack(name: str, read: Set[str], every: Set[str]) -> bool:
    """Whether a parameter is a part of the last block of several whose like is read in all of the others."""
    parts = name.split(".")
    for k, part in enumerate(parts[:-1]):
        if not part.isdigit():
            continue
        stem, behind = "".join(f"{p}." for p in parts[:k]), ".".join(parts[k + 1 :])
        blocks = {n[len(stem) :].partition(".")[0] for n in every if n.startswith(stem)}
        numbers = sorted(int(b) for b in blocks if b.isdigit())
        like = [f"{stem}{j}.{behind}" for j in numbers if j != int(part)]
        rest = any(n.startswith(f"{stem}{part}.") for n in read)
        if like and rest and int(part) == numbers[-1] and all(n in read for n in like):
            return True
    return False


def _list_above(start: Any, graph: Graph) -> set[Any]:
    """The nodes that one is made of, down to the first that the loss reads."""
    seen, todo = {start}, [start]
    while todo:
        for node, _ in todo.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                if node not in graph.index:
                    todo.append(node)
    return seen


def _find_written(specimen: Specimen, names: Iterable[str]) -> list[str]:
    some = [n for n in names if n in specimen.norms]
    now = norms([specimen.parameters[n] for n in some])
    return [
        n for n, norm in zip(some, now, strict=True)
        if abs(norm - specimen.norms[n]) > CHANGED * max(norm, specimen.norms[n])
    ]  # fmt: skip


def _find_targets(forward: ForwardPass, kept: Mapping[str, int]) -> list[str]:
    """The parameters of what ran under no_grad in the model, if only the loss reads it."""
    watched = forward.watched
    found = []
    for name, k in kept.items():
        cut = watched.departures.cuts[k]
        if (
            cut.facts["how"] not in ("no_grad", "inference_mode")
            or cut.facts["path"] == "the loss"
            or not cut.back
        ):
            continue
        if all(node._sequence_nr() >= watched.loss_start for node in cut.back):
            found.append(name)
    return found


@torch.no_grad()
def _find_copies(
    lost: Mapping[str, Tensor],
    living: Mapping[str, Tensor],
    kept: Mapping[str, int],
    forward: ForwardPass,
    backward: BackwardPass,
) -> list[str]:
    prefixes: dict[str, bool] = {}
    for name, p in lost.items():
        if p.ndim < 2:
            continue
        twin = _find_twin(name, p, living)
        prefix = name[: len(name) - len(_share_ending(name, twin))] if twin else name
        above = bool(twin) and _lies_below(living[twin], kept[name], forward, backward)
        prefixes[prefix] = prefixes.get(prefix, True) and above
    good = [prefix for prefix, every in prefixes.items() if every]
    return [name for name in lost if any(name.startswith(prefix) for prefix in good)]


def _find_twin(name: str, p: Tensor, living: Mapping[str, Tensor]) -> str:
    """The trained parameter with the longest common ending that lies near in value; "" if none does."""
    own = name.rpartition(".")[2]
    same = [n for n, other in living.items() if other.shape == p.shape and n.rpartition(".")[2] == own]
    near = [n for n in same if float((living[n] - p).norm()) <= NEAR * float(living[n].norm())]
    return max(near, key=lambda n: len(_share_ending(name, n)), default="")


def _share_ending(a: str, b: str) -> str:
    """The last parts that two names have in common."""
    shared = 0
    pairs = zip(reversed(a.split(".")), reversed(b.split(".")), strict=False)
    for one, other in pairs:
        if one != other:
            break
        shared += 1
    return ".".join(a.split(".")[-shared:]) if shared else ""


def _lies_below(twin: Tensor, cut: int, forward: ForwardPass, backward: BackwardPass) -> bool:
    """Whether the cut's value comes back where the gradient to the twin passes, at every place."""
    graph = backward.graph
    if graph is None:
        return False
    target = torch.autograd.graph.get_gradient_edge(twin).node
    back = [n for n in forward.watched.departures.cuts[cut].back if n in graph.index]
    return all(graph.depends(node, target) for node in back)
