"""Time axes: fused recurrent layers, replayed, and modules that a loop calls on their own results.

Notable: a module is the body of a loop if its second call depends on its first, and its last on the one
before; of nested bodies the outermost counts. `state_log` is the loss's own gradient at each call's output,
`carry_log` that of a random cotangent at the last call's output.
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
from unvanish.probes.events import ModuleCall
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph, Node
from unvanish.probes.measures import log_norm
from unvanish.probes.recurrent.repeated import find_repeated, is_gated
from unvanish.probes.recurrent.replay import replay
from unvanish.probes.recurrent.states import LEAST, Severed, find_states

Bodies = dict[str, list[ModuleCall]]  # the calls of each loop's body, by its path
Carries = dict[str, NDArray[np.float64]]  # ln of the gain back to each call, by the body's path
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


def outputs_to_hold(watched: Forward) -> dict[tuple[int, str], tuple[Node, int]]:
    """The outputs of nodes whose gradients a replay needs, by (number of the module call, which output)."""
    return {
        (number, which): end
        for number, call in enumerate(watched.module_calls)
        if isinstance(call.module, nn.RNNBase) and call.result is not None
        for which, end in zip(("output", "state0", "state1"), call.outputs, strict=False)
    }


def replay_layers(watched: Forward, held: Mapping[Any, tuple[Tensor, int]]) -> Iterator[Recurrence]:
    """The recurrences of the fused layers, if a gradient reaches their output."""
    for number, call in enumerate(watched.module_calls):
        if not isinstance(call.module, nn.RNNBase) or call.result is None or call.inputs is None:
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
        yield from _replay(call, scaled, base)


def _replay(call: ModuleCall, known: Mapping[str, Tensor], base: int) -> Iterator[Recurrence]:
    module = call.module
    assert isinstance(module, nn.RNNBase)
    states: Any = known.get("state0")
    if isinstance(module, nn.LSTM) and ("state0" in known or "state1" in known):
        h, c = call.result[1]
        states = known.get("state0", torch.zeros_like(h)), known.get("state1", torch.zeros_like(c))
    probes = max(1, min(4, PROBES // _sequences(module, call.inputs[0])))
    profiles = replay(
        module, call.inputs, known.get("output"), states, result=_untouched(call), probes=probes
    )
    label = call.path or "(model)"
    several = len(profiles) > 1
    for p in profiles:
        name = f"{label}.l{p.layer}{'_reverse' if p.reverse else ''}" if several else label
        name += f"[{call.index}]" if call.index else ""
        kind = type(module).__name__.lower()
        state = p.state_log - base * LN2
        state[: _count_blank(module, call.inputs[0], p.reverse)] = -math.inf  # what is padding tells nothing
        yield Recurrence(name, call.path, kind, p.reverse, state, p.carry_log)


def _count_blank(module: nn.RNNBase, x: Any, reverse: bool) -> int:
    """How many steps a direction begins with in which all samples are given one and the same."""
    if not isinstance(x, Tensor) or x.ndim != 3:
        return 0
    steps = x.detach().transpose(0, 1) if module.batch_first else x.detach()
    if steps.shape[1] < 2 or not bool((steps[-1 if reverse else 0] == steps[-1 if reverse else 0, :1]).all()):
        return 0
    own = (steps == steps[:, :1]).flatten(1).all(1)
    own = own.flip(0) if reverse else own
    return int(own.long().cumprod(0).sum()) if not bool(own.all()) else 0


def _untouched(call: ModuleCall) -> Any:
    """A recurrent layer's output; None if something was written into it since."""
    output = call.result[0]
    data = output.data if isinstance(output, PackedSequence) else output
    return output if data._version == call.version else None


def _sequences(module: nn.RNNBase, x: Any) -> int:
    """How many sequences a layer was given."""
    if isinstance(x, PackedSequence):
        return int(x.batch_sizes[0])
    return int(x.shape[0 if module.batch_first else 1]) if x.ndim == 3 else 1


def _steps(module: nn.Module) -> bool:
    """Whether a module may be the step of a loop: it has weights, and is not a loop itself."""
    return not isinstance(module, nn.RNNBase) and next(module.parameters(), None) is not None


def find_severed(watched: Forward, bodies: Mapping[str, Any], graph: Graph) -> dict[str, Severed]:
    """States that are detached after every step: of torch's cells by their calls, else by the graph."""
    found = _find_detached(watched, bodies, graph)
    return found or find_states(watched, graph)


def _find_detached(watched: Forward, bodies: Mapping[str, Any], graph: Graph) -> dict[str, Severed]:
    """Cells whose state is detached after every step."""
    made = {call.outputs[0][0]: call for call in watched.module_calls if call.outputs}
    steps: dict[str, set[int]] = defaultdict(set)
    where: dict[str, tuple[str, str]] = {}
    for cut in watched.departures:
        call = None if cut.node is None else made.get(cut.node)
        if call is not None and isinstance(call.module, nn.RNNCellBase):
            steps[call.path].add(call.index)
            where[call.path] = cut.facts["path"], cut.facts["line"]
    counts = Counter(call.path for call in watched.module_calls)
    reached = Counter(
        call.path for call in watched.module_calls if any(node in graph.index for node, _ in call.outputs)
    )
    return {
        path: (counts[path], reached[path], *where[path])
        for path, own in steps.items()
        if counts[path] >= LEAST and path not in bodies and len(own) >= counts[path] - 1
    }


def find_all(watched: Forward, graph: Graph) -> Bodies:
    """The loops whose body is a module, and those that a module has by itself, by its path."""
    found = find_loops(watched, graph)
    return found | find_repeated(watched, graph, found)


def find_loops(watched: Forward, graph: Graph) -> dict[str, list[ModuleCall]]:
    """The calls of every module that is a loop's body, by its path."""
    groups: dict[str, list[ModuleCall]] = defaultdict(list)
    for call in watched.module_calls:
        if call.outputs:
            groups[call.path].append(call)
    found = {
        path: calls
        for path, calls in groups.items()
        if len(calls) >= LEAST and _steps(calls[0].module) and _sequential(calls, graph)
    }
    return {
        p: t
        for p, t in found.items()
        if not any(p != q and p.startswith(q + ".") and len(t) >= len(found[q]) for q in found)
    }


def _sequential(calls: Sequence[ModuleCall], graph: Graph) -> bool:
    pairs = ((calls[1], calls[0]), (calls[-1], calls[-2]))
    return all(
        any(graph.depends(a, b) for a, _ in later.outputs for b, _ in earlier.outputs)
        for later, earlier in pairs
    )


def read_loops(
    body: Mapping[str, list[ModuleCall]],
    graph: Graph,
    flow: GradientFlow,
    carried: Mapping[str, NDArray[np.float64]],
) -> Iterator[Recurrence]:
    """The recurrences of the loops, from the gradients at the outputs of their calls."""
    for path, calls in body.items():
        log = np.array([_at(call, graph, flow.parts) for call in calls])
        last = np.flatnonzero(np.isfinite(log))
        if last.size:
            kind = type(calls[0].module).__name__.lower()
            if kind not in ("lstmcell", "grucell", "rnncell"):
                kind = "gated loop" if is_gated(calls, graph) else "loop"
            yield Recurrence(
                path or "(model)", path, kind, False, log, carried.get(path, np.full(len(calls), math.nan))
            )


def _at(call: ModuleCall, graph: Graph, parts: Mapping[int, tuple[float, ...]]) -> float:
    """Ln of the norm of the gradient at all outputs of a call together."""
    logs = []
    for node, number in call.outputs:
        at = parts.get(graph.index.get(node, -1), ())
        logs.append(at[number] if number < len(at) else -math.inf)
    top = max(logs, default=-math.inf)
    return top + 0.5 * math.log(sum(math.exp(2 * (x - top)) for x in logs)) if math.isfinite(top) else top


def measure_carries(body: Mapping[str, list[ModuleCall]]) -> dict[str, NDArray[np.float64]]:
    """Ln of the gain of a random cotangent from the last call's output back to each call's, (T,)."""
    return {path: _carry(calls) for path, calls in body.items()}


def _carry(calls: list[ModuleCall]) -> NDArray[np.float64]:
    edges = [GradientEdge(node, number) for node, number in calls[-1].outputs]
    shapes = [_metadata(node, number) for node, number in calls[-1].outputs]
    generator = torch.Generator().manual_seed(0)
    cotangents = [torch.randn(s, generator=generator).to(device, dtype) for s, dtype, device in shapes]
    wanted = [GradientEdge(node, number) for call in calls[:-1] for node, number in call.outputs]
    found = torch.autograd.grad(edges, wanted, cotangents, retain_graph=True, allow_unused=True)
    logs, place = [], 0
    for call in calls[:-1]:
        part = found[place : place + len(call.outputs)]
        place += len(call.outputs)
        norms = [log_norm(g) for g in part if g is not None]
        logs.append(float(np.logaddexp.reduce([2 * n for n in norms])) / 2 if norms else -math.inf)
    start = float(np.logaddexp.reduce([2 * log_norm(c) for c in cotangents])) / 2
    return np.array([*logs, start]) - start


def _metadata(node: Any, number: int) -> tuple[tuple[int, ...], torch.dtype, torch.device]:
    entry = node._input_metadata[number]
    return tuple(entry.shape), entry.dtype, entry.device
