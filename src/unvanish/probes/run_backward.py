"""The backward of an examination: the graph, its depth axes, the gradients, and what the rules read off them.

Notable: the graph is kept for a second look, which is taken only if gradients are exactly zero or not finite.
In float16 the gradients are compared with those of a copy in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unvanish.core.facts import HookFacts, PrecisionFacts
from unvanish.probes import attention, faults, node_sites, operations, precision, rounding, sites, slopes
from unvanish.probes.backward import Backward, GradientFlow
from unvanish.probes.chain import Chain, find_chains
from unvanish.probes.errors import ModelCrash
from unvanish.probes.events import ModuleCall, Operation
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph, Node, walk
from unvanish.probes.hooked import find_hooks
from unvanish.probes.passes import BackwardPass, ForwardPass, Specimen
from unvanish.probes.recurrent import loops
from unvanish.probes.recurrent.states import Severed

HALF = "float16"
SEED = {torch.float16: 14}  # log2 of the largest loss scale that the loss's own dtype holds; else 100
ROOM = 6  # log2 below the best loss scale, for what grows on the way down


@dataclass(frozen=True)
class BackwardPlan:
    """From where the gradient starts to the leaves where it is wanted; `scale`: log2 of the loss scale."""

    graph: Graph
    cuts: Sequence[int]
    root: Tensor
    leaves: Mapping[str, Tensor]
    scale: int


@dataclass(frozen=True)
class Prospect:
    """What is known before a backward: its plan, the depth axes, the nodes to watch, loops and precision."""

    plan: BackwardPlan
    chains: Sequence[Chain]
    watches: set[int]
    bodies: loops.Bodies
    carried: loops.Carries
    severed: Mapping[str, Severed]
    compared: PrecisionFacts


Seen = tuple[list[faults.Stop], list[Operation | ModuleCall], frozenset[str], list[HookFacts]]


def run_backward(specimen: Specimen, forward: ForwardPass) -> BackwardPass:
    """The backward from the root of a forward; ModelCrash if it raises."""
    root, attempt = forward.root, specimen.omissions.attempt
    if root.grad_fn is None:
        return BackwardPass()
    if not specimen.manner.nodes:
        graph, leaves = walk(root.grad_fn), find_leaves(specimen, forward)
        return BackwardPass(graph, flow=_run(specimen, forward, BackwardPlan(graph, [], root, leaves, 0)))
    before = foresee(specimen, forward)
    flow = _run(specimen, forward, before.plan, before.watches)
    if before.compared:
        attempt("gradients as they are", "", lambda: _undo_overflow(before.plan, flow), lambda: None)
    seen: Seen = attempt(
        "where gradients end",
        "",
        lambda: _look_again(specimen, before.plan, forward, flow),
        lambda: ([], [], frozenset[str](), []),
    )
    arriving = max((log for log in flow.log.values() if math.isfinite(log)), default=-math.inf)
    noise = attempt(
        "what is rounding", "", lambda: rounding.find_rounding(specimen, flow.logs, arriving), frozenset[str]
    )
    return conclude(specimen, forward, before, flow, seen, noise)


def foresee(specimen: Specimen, forward: ForwardPass) -> Prospect:
    """What a backward will meet, read from the graph and from what its nodes have saved."""
    root, watched, attempt = forward.root, forward.watched, specimen.omissions.attempt
    assert root.grad_fn is not None
    graph, leaves = walk(root.grad_fn), find_leaves(specimen, forward)
    again = specimen.manner.again
    attempt("which softmax is an attention", "", lambda: attention.mark(watched), lambda: None)
    chains: list[Chain] = attempt(
        "the depth axis", "", lambda: find_chains(graph, forward.call, watched), list
    )
    compared = attempt(
        "the cost of float16",
        "",
        lambda: _compare_precision(specimen, forward) if again else PrecisionFacts(),
        PrecisionFacts,
    )
    slopes.read(_find_activations(watched, graph), specimen.omissions)
    bodies: loops.Bodies = attempt(
        "what is repeated in a loop", "", lambda: loops.find_all(watched, graph), dict
    )
    carried: loops.Carries = attempt(
        "gradients carried through a loop", "", lambda: loops.measure_carries(bodies) if again else {}, dict
    )
    severed: dict[str, Severed] = attempt(
        "states that are detached", "", lambda: loops.find_severed(watched, bodies, graph), dict
    )
    plan = BackwardPlan(graph, chains[0].cuts if chains else [0], root, leaves, _scale(compared, root))
    watches: set[int] = attempt(
        "the gradients", "", lambda: _choose_nodes(forward, graph, chains, bodies), set
    )
    return Prospect(plan, chains, watches, bodies, carried, severed, compared)


def _find_activations(watched: Forward, graph: Graph) -> Iterable[Operation]:
    """Those whose slope may be read: what lies in packed memory is unpacked once, for the backward."""
    for o in watched.operations:
        if o.family == "activation" and o.nodes[0] in graph.index and not o.handles.get("packed"):
            yield o


def conclude(
    specimen: Specimen,
    forward: ForwardPass,
    before: Prospect,
    flow: GradientFlow,
    seen: Seen,
    noise: frozenset[str] = frozenset(),
) -> BackwardPass:
    """What a backward that has run tells; `noise`: parameters whose gradient is rounding."""
    watched, attempt, graph = forward.watched, specimen.omissions.attempt, before.plan.graph
    layers: tuple[loops.Recurrence, ...] = attempt(
        "steps of recurrent layers", "", lambda: tuple(loops.replay_layers(watched, flow.held)), tuple
    )
    repeated: tuple[loops.Recurrence, ...] = attempt(
        "steps of loops",
        "",
        lambda: tuple(loops.read_loops(before.bodies, graph, flow, before.carried)),
        tuple,
    )
    stops, broken, cancelled, hooks = seen
    return BackwardPass(
        graph,
        before.chains,
        flow,
        stops,
        broken,
        (*layers, *repeated),
        before.severed,
        before.compared,
        cancelled | noise,
        hooks,
    )


def _run(
    specimen: Specimen, forward: ForwardPass, plan: BackwardPlan, watches: Iterable[int] = ()
) -> GradientFlow:
    """The gradients of a plan; ModelCrash with the module, if it can be found, if the backward raises."""
    held = loops.outputs_to_hold(forward.watched) if specimen.manner.nodes else {}
    backward = Backward(plan.graph, plan.cuts, watches, held, specimen.omissions)
    try:
        return backward.run(plan.root, plan.leaves, scale=plan.scale, whole=not specimen.manner.open)
    except Exception as error:
        site = _find_failing(plan, forward)
        text = f"the backward raised {type(error).__name__}{' in ' + site if site else ''}: {error}"
        raise ModelCrash(text, site, sites.assemble_crash(forward.watched, forward.call, text)) from error


def _undo_overflow(plan: BackwardPlan, flow: GradientFlow) -> None:
    """Take the gradients of leaves that only our own multiplying made overflow from a backward without it."""
    lost = [n for n, log in flow.logs.items() if not math.isfinite(log) and log != -math.inf]
    if not lost or not any(flow.exponents[n] != plan.scale for n in lost):
        return
    plain = Backward(plan.graph, [], (), {}).run(plan.root, plan.leaves, scale=plan.scale)
    for name in lost:
        if math.isfinite(plain.logs.get(name, math.nan)):
            flow.logs[name], flow.gradients[name] = plain.logs[name], plain.gradients[name]
            flow.exponents[name] = plain.exponents[name]


def find_leaves(specimen: Specimen, forward: ForwardPass) -> dict[str, Tensor]:
    """The trainable parameters, and the inputs under names that no parameter has."""
    named = {n: p for n, p in specimen.parameters.items() if p.requires_grad}
    return named | {f"\0{n}": leaf for n, leaf in forward.call.inputs.items()}


def _choose_nodes(
    forward: ForwardPass, graph: Graph, chains: Sequence[Chain], bodies: Mapping[str, Sequence[ModuleCall]]
) -> set[int]:
    """The nodes whose gradients are read: of operations with a site, of calls, of steps, of the axes."""
    watched, index = forward.watched, graph.index
    nodes = [o.nodes[0] for o in watched.operations if node_sites.is_shown(o)]
    nodes += [node for calls in bodies.values() for call in calls for node, _ in call.outputs]
    nodes += [call.outputs[0][0] for call in watched.module_calls if call.outputs]
    found = {index[node] for node in nodes if node in index}
    found.update(*(c.sites for c in chains))
    return found | {i for o in watched.operations for i in attention.watched_nodes(o, graph)}


def _find_failing(plan: BackwardPlan, forward: ForwardPass) -> str:
    """The module whose operation was being differentiated when the backward raised; "" if unknown."""
    reached: list[Node] = []
    handles = [
        node.register_prehook(lambda g, n=node: reached.append(n))
        for node in plan.graph.nodes
        if node.next_functions
    ]
    try:
        torch.autograd.grad(plan.root, list(plan.leaves.values()), allow_unused=True, retain_graph=True)
    except Exception:
        if not reached:
            return ""
        owner = forward.watched.owner(reached[-1]._sequence_nr())
        return owner.caller.path if isinstance(owner, Operation) else owner.path
    finally:
        for handle in handles:
            handle.remove()
    return ""


def _look_again(specimen: Specimen, plan: BackwardPlan, forward: ForwardPass, flow: GradientFlow) -> Seen:
    """What a second backward shows of where gradients end; nothing if all are finite and none is zero."""
    if not any(not math.isfinite(log) for log in flow.logs.values()):
        return [], [], frozenset(), []
    second = Backward(plan.graph, plan.cuts, (), {}, specimen.omissions)
    whole = not specimen.manner.open
    again = second.run(plan.root, plan.leaves, scale=plan.scale, inspect=True, whole=whole)
    return find_ends(specimen, plan, forward, flow, again)


def find_ends(
    specimen: Specimen, plan: BackwardPlan, forward: ForwardPass, flow: GradientFlow, again: GradientFlow
) -> Seen:
    """Where gradients end, who makes them non-finite, whose cancel, and which hooks silence them.

    `again`: the flow of a backward that was inspected.
    """
    graph, watched = plan.graph, forward.watched
    zero = {n for n, log in flow.logs.items() if log == -math.inf}
    starving = {at: n for n in zero if not n.startswith("\0") and (at := flow.places[n]) is not None}
    stops = faults.find_stops(graph, again, watched, starving)
    broken = [watched.owner(graph.nodes[i]._sequence_nr()) for i in again.broken]
    hooks: list[HookFacts] = specimen.omissions.attempt(
        "hooks on gradients", "", lambda: find_hooks(graph, again, watched, starving, plan.leaves), list
    )
    silenced = {name for hook in hooks for name in hook["starves"]}
    return stops, broken, faults.find_cancelled(graph, again, starving) - silenced, hooks


def _compare_precision(specimen: Specimen, forward: ForwardPass) -> PrecisionFacts:
    """How float16 holds the gradients; empty if nothing is in float16."""
    dtypes = {o.facts.get("dtype") for o in forward.watched.operations}
    if HALF not in dtypes | {operations.dtype(p.dtype) for p in specimen.parameters.values()}:
        return {}
    exact = precision.exact(specimen.model, specimen.batch, specimen.loss)
    if exact is None:
        return {"dtype": HALF}
    trainable = [p for p in specimen.parameters.values() if p.requires_grad]
    some_left: dict[float, bool] = {}
    finite: dict[float, bool] = {}

    def holds(scale: float) -> bool:
        """Whether the gradients at a loss scale are finite and not all zero."""
        scaled = forward.root * 2.0**scale
        every = torch.autograd.grad(scaled, trainable, retain_graph=True, allow_unused=True)
        some = [g for g in every if g is not None]
        some_left[scale] = any(bool(g.any()) for g in some)
        finite[scale] = all(bool(torch.isfinite(g).all()) for g in some)
        return finite[scale] and some_left[scale]

    facts = precision.compare(HALF, exact, holds)
    facts["zero_unscaled"] = some_left.get(0.0) is False
    facts["overflow_unscaled"] = finite.get(0.0) is False
    return facts


def _scale(compared: PrecisionFacts, root: Tensor) -> int:
    """Log2 of the loss scale to run at; not 0 in float16 only."""
    best = compared.get("best_scale_log2")
    return 0 if best is None else min(SEED.get(root.dtype, 100), int(best) - ROOM)
