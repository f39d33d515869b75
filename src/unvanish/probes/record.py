"""One exact examination: a forward, a backward, and everything the rules read, as a Trace.

Notable: the model is wrapped in `intact`, so nothing done here outlives the call; the graph is kept for a
second look, which is taken only where gradients are exactly zero, not finite, or in half precision.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unvanish.core.facts import PrecisionFacts, TraceFacts
from unvanish.core.trace import Trace
from unvanish.probes import (
    attention,
    calls,
    faults,
    parameters,
    precision,
    sites,
    slopes,
)
from unvanish.probes import (
    operations as families,
)
from unvanish.probes.backward import Backward, Flow
from unvanish.probes.chain import Chain, chain
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.forward import Forward, Modules, Operation
from unvanish.probes.graph import Graph, Node, walk
from unvanish.probes.intact import in_the_open, intact, unwrapped
from unvanish.probes.measures import finite, norms
from unvanish.probes.program.tape import Taped
from unvanish.probes.recurrent import loops
from unvanish.theory.program.beside import Beside, Sketch


def record(
    model: nn.Module,
    batch: Any,
    loss: Callable[..., Any] | None = None,
    *,
    optimizer: Any = None,
    theory: bool = False,
) -> Trace:
    """Measure one batch; the model and the process are bit-identical afterwards.

    `batch` is a tensor, an (x, y) pair, or a dict passed as keywords; `loss` is called as loss(output, y) or
    loss(output). `theory`: lay beside it what was to be expected. CheckError where these do not fit together,
    ModelCrash where the model or the loss raises.
    """
    bare, modules, named = _checked(model)
    with warnings.catch_warnings(), intact(bare, dict.fromkeys([m for _, m in modules])), in_the_open():
        warnings.simplefilter("ignore")
        return Examination(bare, modules, named, batch, loss, optimizer, theory).trace()


def _checked(model: Any) -> tuple[nn.Module, Modules, dict[str, Tensor]]:
    """The module inside any wrapper, its modules by every name, and its parameters by their first."""
    if not isinstance(model, nn.Module):
        raise CheckError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module; pass the module itself"
        )
    bare = unwrapped(model)
    modules = list(bare.named_modules(remove_duplicate=False))  # walking them is dear beside a small network
    named = parameters.first_named(modules)
    lazy = [n for n, p in named.items() if is_lazy(p)]
    if lazy:
        raise CheckError(
            f"the parameter {lazy[0]} has no shape yet (a lazy module); run the model once on a batch first"
        )
    if not named:
        raise CheckError(
            "the model has no parameters, so there is nothing to train; pass the module that holds them"
        )
    if not any(p.requires_grad for p in named.values()):
        raise CheckError(
            "every parameter is frozen (requires_grad=False), so nothing would train; unfreeze some"
        )
    if any(p.is_meta for p in named.values()):
        raise CheckError("the model is on the meta device and holds no numbers; materialise it first")
    return bare, modules, named


class Examination:
    """The steps of one examination, in order; `trace` runs them."""

    def __init__(
        self,
        model: nn.Module,
        modules: Modules,
        parameters: Mapping[str, Tensor],
        batch: Any,
        loss: Any,
        optimizer: Any,
        theory: bool = False,
    ) -> None:
        self.model, self.batch, self.loss, self.optimizer = model, batch, loss, optimizer
        self.theory = theory
        self.modules, self.parameters = modules, parameters
        self.norms = dict(zip(self.parameters, norms(list(self.parameters.values())), strict=True))
        self.call, self.watched, self.value = self._forward()
        self.graph: Graph | None = None
        self.chains: list[Chain] = []
        self.flow: Flow | None = None
        self.stops: list[faults.Stop] = []
        self.broken: list[Any] = []
        self.recurrences: list[loops.Recurrence] = []
        self.severed: dict[str, tuple[int, str]] = {}
        self.precision: PrecisionFacts = {}
        self.scale = 0  # log2 of the loss scale the backward is run at; not 0 in float16 only

    def trace(self) -> Trace:
        """Everything measured."""
        value = self.value
        if not math.isfinite(float(value.detach())):
            self._find_nonfinite_forward()
            value = self._before_the_overflow()
        if value.grad_fn is not None:
            self.graph = walk(value.grad_fn)
            self._backward(self.graph, value)
        return self._assembled()

    # -- forward

    def _forward(self, check_finite: bool = False) -> tuple[calls.Call, Forward, Tensor]:
        try:
            return self._attempt(True, check_finite)
        except ModelCrash as crash:
            said = str(crash.__cause__)
            told = any(words in said for words in ("requires grad", "require grad", "requires_grad"))
            if not isinstance(crash.__cause__, RuntimeError) or not told:
                raise
        return self._attempt(False, check_finite)

    def _attempt(self, gradients: bool, check_finite: bool) -> tuple[calls.Call, Forward, Tensor]:
        call = calls.prepare(self.batch, self.loss, gradients=gradients)
        watched = (
            Taped(self.model, self.model, call, self.parameters, self.norms, self.modules)
            if self.theory
            else Forward(self.model, call.batch_size, self.parameters, self.norms, self.modules)
        )
        watched.check_finite = check_finite
        self.entering = {name: watched.entering(x) for name, x in call.originals.items()}
        with watched.watching():
            try:
                output = self.model(*call.args, **call.kwargs)
            except Exception as error:
                raise self._crash(watched, call, error, watched.turn.path) from error
            watched.start_loss()
            try:
                value = call.objective(output)
            except CheckError:
                raise
            except Exception as error:
                raise self._crash(watched, call, error, "loss") from error
        self.output, self.overflowed = output, False
        self.kind = call.kind or ("output.loss" if calls.own_loss(output) is not None else "random cotangent")
        return call, watched, _scalar(value)

    def _crash(self, watched: Forward, call: calls.Call, error: Exception, site: str) -> ModelCrash:
        where = f"in {site}" if site else "in its own forward"
        text = f"the {'loss' if site == 'loss' else 'model'} raised {type(error).__name__} {where}: {error}"
        return ModelCrash(text, site, sites.partial(watched, call, text))

    def _before_the_overflow(self) -> Tensor:
        """The loss; where it alone overflows, from finite outputs, their product with a random cotangent."""
        outputs = calls.predictions(self.output)
        if math.isnan(float(self.value.detach())) or not outputs or not all(finite(t) for t in outputs):
            return self.value
        self.overflowed = True
        return calls.random_cotangent(self.output)

    def _find_nonfinite_forward(self) -> None:
        self.call, self.watched, self.value = self._forward(check_finite=True)

    # -- backward

    def _backward(self, graph: Graph, value: Tensor) -> None:
        watched = self.watched
        attention.mark(watched)
        self.chains = chains(graph, self.call, self.watched)
        self._precision(value)
        slopes.read(o for o in watched.operations if o.family == "activation" and o.nodes[0] in graph.index)
        bodies = loops.loops(watched, graph)
        carried = loops.carries(bodies)
        self.severed = loops.severed(watched, bodies)
        leaves = self._leaves()
        cuts = self.chains[0].cuts if self.chains else [0]
        wanted = self._interesting(graph, bodies)
        run = Backward(graph, cuts, wanted, loops.fused(watched))
        try:
            self.flow = flow = run.run(value, leaves, scale=self.scale)
        except RuntimeError as error:
            site = self._failing(graph, value, leaves)
            text = f"the backward raised {type(error).__name__}{' in ' + site if site else ''}: {error}"
            raise ModelCrash(text, site, sites.partial(watched, self.call, text)) from error
        self.recurrences = [
            *loops.replayed(watched, flow.held),
            *loops.looped(bodies, graph, flow, carried),
        ]
        self._second_look(graph, value, leaves, cuts)

    def _leaves(self) -> dict[str, Tensor]:
        named = {n: p for n, p in self.parameters.items() if p.requires_grad}
        return named | {f"\0{n}": leaf for n, leaf in self.call.inputs.items()}

    def _interesting(self, graph: Graph, bodies: Mapping[str, Any]) -> set[int]:
        found = {
            graph.index[o.nodes[0]]
            for o in self.watched.operations
            if o.nodes[0] in graph.index and sites.shown(o)
        }
        found |= {
            graph.index[n]
            for turns in bodies.values()
            for t in turns
            for n, _ in t.outputs
            if n in graph.index
        }
        found |= {
            graph.index[t.outputs[0][0]]
            for t in self.watched.turns
            if t.outputs and t.outputs[0][0] in graph.index
        }
        for c in self.chains[:4]:
            found |= set(c.sites)
        return found | {i for o in self.watched.operations for i in attention.watched_nodes(o, graph)}

    def _failing(self, graph: Graph, value: Tensor, leaves: Mapping[str, Tensor]) -> str:
        """The module whose operation was being differentiated when the backward raised."""
        reached: list[Node] = []
        handles = [
            node.register_prehook(lambda g, n=node: reached.append(n))
            for node in graph.nodes
            if node.next_functions
        ]
        try:
            torch.autograd.grad(value, list(leaves.values()), allow_unused=True, retain_graph=True)
        except RuntimeError:
            owner: Any = self.watched.owner(reached[-1]._sequence_nr()) if reached else None
            return (
                (owner.turn.path if isinstance(owner, Operation) else owner.path) if owner is not None else ""
            )
        finally:
            for handle in handles:
                handle.remove()
        return ""

    def _second_look(
        self, graph: Graph, value: Tensor, leaves: Mapping[str, Tensor], cuts: list[int]
    ) -> None:
        assert self.flow is not None
        logs = self.flow.logs
        zero = {n for n, log in logs.items() if log == -math.inf}
        broken = any(math.isnan(log) or log == math.inf for log in logs.values())
        if not zero and not broken:
            return
        again = Backward(graph, cuts, (), {}).run(value, leaves, scale=self.scale, inspect=True)
        places = self.flow.places
        nodes = {at: n for n in zero if not n.startswith("\0") and (at := places[n]) is not None}
        self.stops = faults.stops(graph, again, self.watched, nodes)
        self.broken = [self.watched.owner(graph.nodes[i]._sequence_nr()) for i in again.broken]

    def _precision(self, value: Tensor) -> None:
        met = {str(o.facts.get("dtype")) for o in self.watched.operations} | {
            families.dtype(p.dtype) for p in self.parameters.values()
        }
        name = "float16"
        if name not in met:
            return
        found = precision.exact(self.model, self.batch, self.loss)
        if found is None:
            self.precision = {"dtype": name}
            return
        named = [p for p in self.parameters.values() if p.requires_grad]

        def native(scale: float) -> bool:
            got = [
                g
                for g in torch.autograd.grad(value * 2.0**scale, named, retain_graph=True, allow_unused=True)
                if g is not None
            ]
            return all(bool(torch.isfinite(g).all()) for g in got) and any(bool(g.any()) for g in got)

        self.precision = precision.compare(name, found, native)
        if "best_scale_log2" in self.precision:
            most = 14 if value.dtype == torch.float16 else 100  # the seed must fit the loss's own dtype
            self.scale = min(most, int(self.precision["best_scale_log2"]) - 6)

    # -- the trace

    def _assembled(self) -> Trace:
        rows = sites.inputs(self.call, self.flow, self.entering)
        chains = self.chains[:4] if self.graph else []
        nodes, axes, places = sites.nodes(
            self.call, self.watched, self.graph, self.flow, chains, self.stops, self.broken
        )
        rows += nodes
        rows += sites.steps(self.recurrences)
        rows += sites.outputs(self.watched, self.value)
        structural = parameters.zero_by_structure(self.watched, self.graph, self.flow)
        rows += parameters.read(
            self.modules, self.watched, self.graph, self.flow, self.optimizer, structural, self.norms
        )
        found = sites.assemble(rows, axes, self._facts())
        if not isinstance(self.watched, Taped) or found.depth() is None:
            return found
        beside = Beside(found, self._sketch(self.watched, places))
        return replace(found, facts={**found.facts, "theory": beside})

    def _sketch(self, watched: Taped, places: Mapping[int, int]) -> Sketch:
        """The program that was run, and the tensors of the operations and inputs that have a site."""
        numbers: dict[Any, list[int]] = {}
        for (node, _), number in watched.numbers.items():
            numbers.setdefault(node, []).append(number)
        nodes = self.graph.nodes if self.graph else ()
        tensors = {site: tuple(numbers.get(nodes[node], ())) for node, site in places.items()}
        for site, name in enumerate(self.call.originals):  # the first rows of the trace
            if name in watched.named_inputs:
                tensors[site] = (watched.named_inputs[name],)
        return Sketch(watched.program(self.output), tensors)

    def _facts(self) -> TraceFacts:
        some = next(iter(self.parameters.values()))
        floats = sorted(
            {str(o.facts["dtype"]) for o in self.watched.operations if "float" in str(o.facts.get("dtype"))}
        )
        facts: TraceFacts = {
            "loss": float(self.value.detach()),
            "loss_kind": sites.loss_kind(self.watched),
            "objective": self.kind,
            "batch_size": self.call.batch_size,
            "dtype": str(some.dtype).removeprefix("torch."),
            "dtypes": tuple(floats),
            "device": str(some.device),
            "parameters": sum(p.numel() for p in self.parameters.values()),
            "training": self.model.training,
            "torch": str(torch.__version__),
            "graph_cuts": sites.graph_cuts(self.watched),
            "assumptions": sites.assumptions(self.kind, self.overflowed),
            "loss_overflow": self.overflowed,
        }
        if self.precision:
            facts["precision"] = self.precision
        if self.severed:
            facts["severed"] = self.severed
        return facts


def _scalar(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise CheckError(
            f"the loss returned a {kind}, not a scalar tensor; return the tensor itself, without .item()"
        )
    if value.numel() != 1:
        raise CheckError(
            f"the loss is not a scalar: its shape is {tuple(value.shape)}; reduce it, say with .mean()"
        )
    if value.is_complex() or not value.is_floating_point():
        raise CheckError(f"the loss is {value.dtype}, but a gradient needs a real floating-point scalar")
    return value.reshape(())


def chains(graph: Graph, call: calls.Call, watched: Forward) -> list[Chain]:
    """The depth axes, the longest first: above each float input, and above each embedding."""
    targets: dict[str, Node] = {
        n: torch.autograd.graph.get_gradient_edge(t).node for n, t in call.inputs.items()
    }
    embeddings = [o for o in watched.operations if o.kind == "embedding" and o.nodes[0] in graph.index]
    targets |= {f"{o.turn.path} (call {o.order})": o.nodes[0] for o in embeddings[:6]}
    found = [
        chain(graph, graph.index[node], watched, name)
        for name, node in targets.items()
        if node in graph.index
    ]
    if not any(len(c.sites) > 2 for c in found):
        layers = [
            o for o in watched.operations if o.family in ("layer", "recurrent") and o.nodes[0] in graph.index
        ]
        found += [chain(graph, graph.index[o.nodes[0]], watched, o.turn.path) for o in layers[:3]]
    return sorted((c for c in found if c.sites), key=lambda c: -len(c.sites))
