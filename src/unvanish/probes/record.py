"""One exact examination: a forward, a backward, and everything the rules read, as a Trace.

Notable: the model is wrapped in `intact`, so nothing done here outlives the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from warnings import WarningMessage

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unvanish.core.facts import TraceFacts
from unvanish.core.trace import Trace
from unvanish.probes import node_sites, outputs, parameters, sites, warned
from unvanish.probes.apart import find_apart
from unvanish.probes.blame import find_blame
from unvanish.probes.calls import tensors_in
from unvanish.probes.custom import find_wrong_gradients
from unvanish.probes.dead_terms import find_dead_terms
from unvanish.probes.errors import CheckError
from unvanish.probes.events import Operation
from unvanish.probes.foreign import find_foreign
from unvanish.probes.forward import Modules
from unvanish.probes.intact import in_the_open, intact, unwrap
from unvanish.probes.leaks import find_leak
from unvanish.probes.measures import norms
from unvanish.probes.passes import BackwardPass, ForwardPass, Specimen
from unvanish.probes.program.tape import Taped
from unvanish.probes.routers import find_routers
from unvanish.probes.run_backward import run_backward
from unvanish.probes.run_forward import run_forward
from unvanish.theory.program.comparison import Comparison, Sketch


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
    loss(output). `theory`: predict the total too. CheckError if these do not fit together, ModelCrash if the
    model or the loss raises.
    """
    bare, modules, named = _check_model(model)
    with warned.listen() as heard, intact(bare, dict.fromkeys([m for _, m in modules])), in_the_open():
        sizes = dict(zip(named, norms(list(named.values())), strict=True))
        specimen = Specimen(bare, modules, named, sizes, batch, loss, optimizer, theory)
        return _assemble(specimen, *_run_both(specimen), heard)


def _run_both(specimen: Specimen) -> tuple[ForwardPass, BackwardPass]:
    """Forward and backward; again, with every result looked at, if the backward breaks at numbers that the
    forward made and the loss hides, as in rows that it discards.
    """
    forward = run_forward(specimen)
    backward = run_backward(specimen, forward)
    if not backward.broken or forward.watched.check_finite:
        return forward, backward
    looked = run_forward(specimen, check_finite=True)
    again = run_backward(specimen, looked)
    first = again.broken[0] if again.broken else None
    hidden = isinstance(first, Operation) and first.handles.get("fed_nonfinite")
    return (looked, again) if hidden else (forward, backward)


def _check_model(model: Any) -> tuple[nn.Module, Modules, dict[str, Tensor]]:
    """The module inside any wrapper, its modules by every name, and its parameters by their first."""
    if not isinstance(model, nn.Module):
        raise CheckError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module; pass the module itself"
        )
    bare = unwrap(model)
    modules = list(bare.named_modules(remove_duplicate=False))  # expensive next to a small network's forward
    named = parameters.name_parameters(modules)
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


def _assemble(
    specimen: Specimen, forward: ForwardPass, backward: BackwardPass, heard: Sequence[WarningMessage]
) -> Trace:
    watched = forward.watched
    rows = sites.inputs(forward.call, backward.flow, forward.entering)
    nodes, axes, places = node_sites.nodes(forward.call, watched, backward)
    rows += nodes
    rows += sites.steps(backward.recurrences)
    rows += outputs.outputs(watched, forward.loss)
    facts = _facts(specimen, forward, backward)
    if foreign := find_foreign(specimen, forward, backward):
        facts["foreign"] = foreign
    if dead := find_dead_terms(forward, backward):
        facts["dead_terms"] = dead
    if routers := find_routers(forward.watched):
        facts["routers"] = routers
    if leak := find_leak(specimen, forward, backward):
        facts["leak"] = leak
    if forward.custom and (wrong := find_wrong_gradients(forward.custom)):
        facts["wrong_gradients"] = wrong
    if forward.watched.dropouts:
        facts["dropouts"] = forward.watched.dropouts
    if said := warned.choose(heard):
        facts["warned"] = said
    apart = find_apart(specimen, forward, backward, facts["graph_cuts"])
    rows += parameters.read(specimen, watched, backward, apart)
    found = sites.assemble(rows, axes, facts)
    if not isinstance(watched, Taped) or found.depth() is None:
        return found
    tensors = _tensors(watched, forward, backward, places)
    theory = Comparison(found, Sketch(watched.program(forward.output), tensors))
    return replace(found, facts={**found.facts, "theory": theory})


def _tensors(
    watched: Taped, forward: ForwardPass, backward: BackwardPass, places: Mapping[int, int]
) -> dict[int, tuple[int, ...]]:
    """The program's tensors that the sites of operations and inputs stand for, by site."""
    numbers: dict[Any, list[int]] = {}
    for (node, _), number in watched.numbers.items():
        numbers.setdefault(node, []).append(number)
    nodes = backward.graph.nodes if backward.graph else ()
    tensors = {site: tuple(numbers.get(nodes[node], ())) for node, site in places.items()}
    for site, name in enumerate(forward.call.originals):  # the first rows of the trace
        if name in watched.named_inputs:
            tensors[site] = (watched.named_inputs[name],)
    return tensors


def _is_target_broken(batch: Any, forward: ForwardPass) -> bool:
    """Whether a tensor of the batch that the model is not given holds a NaN or an infinity."""
    given = {id(t) for t in forward.call.originals.values()}
    rest = (t for t in tensors_in(batch, 3) if t.is_floating_point() and id(t) not in given)
    return not all(bool(torch.isfinite(t).all()) for t in rest)


def _facts(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> TraceFacts:
    some, watched = next(iter(specimen.parameters.values())), forward.watched
    dtypes = {o.facts.get("dtype", "") for o in watched.operations}
    facts: TraceFacts = {
        "loss": float(forward.loss.detach()),
        "loss_kind": outputs.loss_kind(watched),
        "objective": forward.objective,
        "batch_size": forward.call.batch_size,
        "dtype": str(some.dtype).removeprefix("torch."),
        "dtypes": tuple(sorted(name for name in dtypes if "float" in name)),
        "device": str(some.device),
        "parameters": sum(p.numel() for p in specimen.parameters.values()),
        "training": specimen.model.training,
        "torch": str(torch.__version__),
        "graph_cuts": find_blame(specimen, forward, backward),
        "assumptions": outputs.assumptions(forward.objective, forward.overflow is not None),
        "loss_overflow": forward.overflow is not None,
    }
    if not math.isfinite(facts["loss"]):
        facts["target_nonfinite"] = _is_target_broken(specimen.batch, forward)
    if backward.precision:
        facts["precision"] = backward.precision
    if specimen.optimizer is not None:
        facts["stale"] = parameters.count_stale(specimen)
    if backward.hooks:
        facts["hooks"] = list(backward.hooks)
    if backward.severed:
        facts["severed"] = dict(backward.severed)
    return facts
