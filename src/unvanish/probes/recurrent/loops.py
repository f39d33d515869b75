"""Time axes: fused recurrent layers, replayed, and modules a loop calls again and again on their own results.

Notable: a module is a loop's body if its second call depends on its first and its last on the one before; of
nested bodies the outermost counts. `state_log` is the loss's own gradient at each call's output, `carry_log`
that of a random cotangent at the last call's output.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.utils.rnn import PackedSequence

from unvanish.probes.backward import LN2, GradientFlow
from unvanish.probes.forward import Forward, Turn
from unvanish.probes.graph import Graph, Node
from unvanish.probes.measures import log_norm
from unvanish.probes.recurrent import replay as through_time

LEAST = 5  # calls
PROBES = 32  # random cotangents a replay carries back, over all sequences


@dataclass(frozen=True)
class Recurrence:
    """One direction of a recurrent layer, or one loop: the gradient at each step, first processed first."""

    of: str
    module: str
    kind: str
    reverse: bool
    state_log: NDArray[np.float64]
    carry_log: NDArray[np.float64]


def fused(watched: Forward) -> dict[tuple[int, str], tuple[Node, int]]:
    """The outputs of nodes whose gradients a replay needs, by (turn, which); those of the call itself."""
    return {
        (number, which): end
        for number, turn in enumerate(watched.turns)
        if isinstance(turn.module, nn.RNNBase) and turn.result is not None
        for which, end in zip(("output", "state0", "state1"), turn.outputs, strict=False)
    }


def replayed(watched: Forward, held: Mapping[Any, tuple[Tensor, int]]) -> Iterator[Recurrence]:
    """The recurrences of the fused layers whose output has a gradient."""
    for number, turn in enumerate(watched.turns):
        if not isinstance(turn.module, nn.RNNBase) or turn.result is None or turn.inputs is None:
            continue
        known = {
            which: held[number, which] for which in ("output", "state0", "state1") if (number, which) in held
        }
        if not known:
            continue
        base = max(exponent for _, exponent in known.values())
        scaled = {
            k: g.double() if base == e else g.double() * (2.0 ** (base - e) if base - e < 900 else 0)
            for k, (g, e) in known.items()
        }
        yield from _replay(turn, scaled, base)


def _replay(turn: Turn, known: Mapping[str, Tensor], base: int) -> Iterator[Recurrence]:
    module = turn.module
    assert isinstance(module, nn.RNNBase)
    states: Any = known.get("state0")
    if isinstance(module, nn.LSTM) and ("state0" in known or "state1" in known):
        h, c = turn.result[1]
        states = known.get("state0", torch.zeros_like(h)), known.get("state1", torch.zeros_like(c))
    probes = max(1, min(4, PROBES // _sequences(module, turn.inputs[0])))
    profiles = through_time.replay(
        module, turn.inputs, known.get("output"), states, result=_untouched(turn), probes=probes
    )
    label = turn.path or "(model)"
    several = len(profiles) > 1
    for p in profiles:
        name = f"{label}.l{p.layer}{'_reverse' if p.reverse else ''}" if several else label
        name += f"[{turn.call}]" if turn.call else ""
        kind = type(module).__name__.lower()
        yield Recurrence(name, turn.path, kind, p.reverse, p.state_log - base * LN2, p.carry_log)


def _untouched(turn: Turn) -> Any:
    """A recurrent layer's output, unless something was written into it since."""
    output = turn.result[0]
    data = output.data if isinstance(output, PackedSequence) else output
    return output if data._version == turn.version else None


def _sequences(module: nn.RNNBase, x: Any) -> int:
    """How many sequences a layer was given."""
    if isinstance(x, PackedSequence):
        return int(x.batch_sizes[0])
    return int(x.shape[0 if module.batch_first else 1]) if x.ndim == 3 else 1


def _steps(module: nn.Module) -> bool:
    """Whether a module may be the step of a loop: it has weights, and is no loop itself."""
    return not isinstance(module, nn.RNNBase) and next(module.parameters(), None) is not None


def severed(watched: Forward, bodies: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Cells whose state leaves the graph after every step: their calls, and the module that does it."""
    made = {turn.outputs[0][0]: turn for turn in watched.turns if turn.outputs}
    steps: dict[str, set[int]] = defaultdict(set)
    where: dict[str, str] = {}
    for cut, node in watched.cuts:
        turn = None if node is None else made.get(node)
        if turn is not None and isinstance(turn.module, nn.RNNCellBase):
            steps[turn.path].add(turn.call)
            where[turn.path] = cut["path"]
    calls = Counter(turn.path for turn in watched.turns)
    return {
        path: (calls[path], where[path])
        for path, own in steps.items()
        if calls[path] >= LEAST and path not in bodies and len(own) >= calls[path] - 1
    }


def loops(watched: Forward, graph: Graph) -> dict[str, list[Turn]]:
    """The calls of every module that is a loop's body, by its path."""
    groups: dict[str, list[Turn]] = defaultdict(list)
    for turn in watched.turns:
        if turn.outputs:
            groups[turn.path].append(turn)
    found = {
        path: turns
        for path, turns in groups.items()
        if len(turns) >= LEAST and _steps(turns[0].module) and _sequential(turns, graph)
    }
    return {
        p: t
        for p, t in found.items()
        if not any(p != q and p.startswith(q + ".") and len(t) >= len(found[q]) for q in found)
    }


def _sequential(turns: Sequence[Turn], graph: Graph) -> bool:
    pairs = ((turns[1], turns[0]), (turns[-1], turns[-2]))
    return all(
        any(graph.depends(a, b) for a, _ in later.outputs for b, _ in earlier.outputs)
        for later, earlier in pairs
    )


def looped(
    body: Mapping[str, list[Turn]],
    graph: Graph,
    flow: GradientFlow,
    carried: Mapping[str, NDArray[np.float64]],
) -> Iterator[Recurrence]:
    """The recurrences of the loops, from the gradients at the outputs of their calls."""
    for path, turns in body.items():
        log = np.array([_at(turn, graph, flow.parts) for turn in turns])
        last = np.flatnonzero(np.isfinite(log))
        if last.size:
            kind = type(turns[0].module).__name__.lower()
            kind = kind if kind in ("lstmcell", "grucell", "rnncell") else "loop"
            yield Recurrence(
                path or "(model)", path, kind, False, log, carried.get(path, np.full(len(turns), math.nan))
            )


def _at(turn: Turn, graph: Graph, parts: Mapping[int, tuple[float, ...]]) -> float:
    """Ln of the norm of the gradient at all outputs of a call together."""
    logs = []
    for node, number in turn.outputs:
        at = parts.get(graph.index.get(node, -1), ())
        logs.append(at[number] if number < len(at) else -math.inf)
    top = max(logs, default=-math.inf)
    return top + 0.5 * math.log(sum(math.exp(2 * (x - top)) for x in logs)) if math.isfinite(top) else top


def carries(body: Mapping[str, list[Turn]]) -> dict[str, NDArray[np.float64]]:
    """Ln of the gain of a random cotangent from the last call's output back to each call's, (T,)."""
    return {path: _carry(turns) for path, turns in body.items()}


def _carry(turns: list[Turn]) -> NDArray[np.float64]:
    edges = [GradientEdge(node, number) for node, number in turns[-1].outputs]
    shapes = [_metadata(node, number) for node, number in turns[-1].outputs]
    generator = torch.Generator().manual_seed(0)
    cotangents = [torch.randn(s, generator=generator).to(device, dtype) for s, dtype, device in shapes]
    wanted = [GradientEdge(node, number) for turn in turns[:-1] for node, number in turn.outputs]
    found = torch.autograd.grad(edges, wanted, cotangents, retain_graph=True, allow_unused=True)
    logs, place = [], 0
    for turn in turns[:-1]:
        part = found[place : place + len(turn.outputs)]
        place += len(turn.outputs)
        norms = [log_norm(g) for g in part if g is not None]
        logs.append(float(np.logaddexp.reduce([2 * n for n in norms])) / 2 if norms else -math.inf)
    start = float(np.logaddexp.reduce([2 * log_norm(c) for c in cotangents])) / 2
    return np.array([*logs, start]) - start


def _metadata(node: Any, number: int) -> tuple[tuple[int, ...], torch.dtype, torch.device]:
    entry = node._input_metadata[number]
    return tuple(entry.shape), entry.dtype, entry.device
