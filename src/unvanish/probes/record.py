"""One exact examination: a forward, a backward, and everything the rules read, as a Trace.

Notable:
- The model is wrapped in `intact`, so nothing done here outlives the call.
- If an examination fails although the model trains alone, it is tried again with less: with nothing switched
  off, then with the gradients of the parameters alone. The report says what was left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unvanish.core.facts import GraphCut, TraceFacts
from unvanish.core.loss_facts import AscentFacts, BroadcastFacts, WishFacts
from unvanish.core.omissions import Omissions
from unvanish.core.trace import Trace
from unvanish.probes import node_sites, outputs, parameters, sites, warned
from unvanish.probes.alone import require_alone
from unvanish.probes.apart import Apart, find_apart
from unvanish.probes.ascent import find_ascents, find_turned_twice
from unvanish.probes.blame import find_blame
from unvanish.probes.calls import tensors_in
from unvanish.probes.errors import CheckError
from unvanish.probes.events import Operation
from unvanish.probes.intact import Kept, intact, unwrap
from unvanish.probes.layers import is_layer, name_modules, name_parameters
from unvanish.probes.measures import norms
from unvanish.probes.passes import BackwardPass, ForwardPass, Manner, Specimen
from unvanish.probes.program.tape import Taped
from unvanish.probes.run_backward import run_backward
from unvanish.probes.run_forward import find_lines, run_forward
from unvanish.probes.shared_changes import EAGER, QUIET
from unvanish.probes.signs import read_signs
from unvanish.probes.terms import measure_terms
from unvanish.probes.wishes import find_wishes
from unvanish.theory.program.comparison import Comparison, Sketch

HEAP = 1 << 23  # bytes of a block that is larger than those of a small examination
ADDED = ("add", "sub")  # the lowest number as a mask may overflow in these, to where it shall go
ZEROS = 8  # operations that give zeros, of which the line is looked up
AGAIN = {  # how a model is looked at if all at once fails, and what is left out then
    Manner(inputs=False, open=False): "the inputs' gradients, and the run without dropout and recomputation",
    Manner(False, False, False, False): "all but the loss and the gradients of the parameters",
}


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
    specimen = read_specimen(model, batch, loss, optimizer=optimizer, theory=theory)
    with intact(specimen.model, batch, loss) as kept, kept:
        found = measure(specimen, kept)
    return say_lost(found, kept)


def measure(specimen: Specimen, kept: Kept) -> Trace:
    """The same within a context that puts everything back."""
    if any(hasattr(p, "to_local") for p in specimen.parameters.values() if type(p) is not nn.Parameter):
        return _examine_again(specimen, "parameters are sharded; of each, the part of this process was read")
    try:
        return examine(specimen)
    except CheckError:
        raise
    except Exception as error:
        failed = error
    kept.rewind()
    require_alone(specimen, failed)
    return _examine_again(specimen, failed)


def say_lost(trace: Trace, kept: Kept) -> Trace:
    """The trace, with what could not be put back."""
    return replace(trace, facts={**trace.facts, "not_put_back": list(kept.lost)}) if kept.lost else trace


@cache
def keep_memory() -> None:
    """Have the C library keep the memory of small examinations from one to the next.

    It gives back what exceeds twice the largest block that was ever freed; getting it anew costs a tenth of
    the time of a small one. The block here is never written to, so it takes none.
    """
    torch.empty(HEAP, dtype=torch.uint8)


def examine(specimen: Specimen) -> Trace:
    """One forward and one backward, in the specimen's manner."""
    keep_memory()
    specimen = measure_sizes(specimen)
    with warned.listen() as heard:
        forward, backward = _run_both(specimen)
        if specimen.manner.signs:
            specimen.omissions.attempt(
                "lines of code", "", lambda: _name_lines(specimen, forward, backward), lambda: None
            )
    return assemble(specimen, forward, backward, heard)


def _run_both(specimen: Specimen) -> tuple[ForwardPass, BackwardPass]:
    """Forward and backward; again, with every result looked at, if the backward breaks at numbers that the
    forward made and the loss hides, as in rows that it discards; or if float16 overflows on the way, and a
    quotient makes zeros of that.
    """
    forward = run_forward(specimen)
    backward = run_backward(specimen, forward)
    halved = _runs_in_half(forward)
    if forward.watched.check_finite or not (backward.broken or halved):
        return forward, backward
    looked = run_forward(specimen, check_finite=True)
    made = looked.watched.first_broken
    lost = halved and made is not None and made.kind not in ADDED
    if not (backward.broken or lost):
        return forward, backward
    again = run_backward(specimen, looked)
    first = again.broken[0] if again.broken else None
    hidden = isinstance(first, Operation) and first.handles.get("fed_nonfinite")
    return (looked, again) if hidden or lost else (forward, backward)


def _runs_in_half(forward: ForwardPass) -> bool:
    """Whether anything ran in float16, where a quotient hides an infinity as a zero."""
    return any(o.facts.get("dtype") == "float16" for o in forward.watched.operations)


def measure_sizes(specimen: Specimen) -> Specimen:
    """The specimen, with the norms of its parameters."""
    named = specimen.parameters
    sizes: dict[str, float] = specimen.omissions.attempt(
        "the norms of the parameters", "", lambda: _measure_norms(named), dict
    )
    return replace(specimen, norms=sizes)


def _name_lines(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> None:
    """The line of each operation that stops or spoils a gradient; one more forward if there is any."""
    owners: list[Any] = [
        stop.owner for stop in backward.stops if stop.because in ("operation", "number", "loss")
    ]
    if any(stop.because == "dead" for stop in backward.stops):  # perhaps what reads zeros
        owners += [o for o in forward.watched.operations if o.stats.get("forward_rms") == 0][:ZEROS]
    owners += [*backward.broken, *([forward.watched.first_broken] if forward.watched.check_finite else [])]
    odd = {o.order: o for o in owners if isinstance(o, Operation)}
    for order, (kind, line) in (find_lines(specimen, odd.keys()) if odd else {}).items():
        if kind == odd[order].kind:
            odd[order].facts["line"] = line


def _measure_norms(named: Mapping[str, Tensor]) -> dict[str, float]:
    return dict(zip(named, norms(list(named.values())), strict=True))


def _examine_again(specimen: Specimen, failed: Exception | str) -> Trace:
    """What a model that trains alone lets us see, in the closest manner that it bears."""
    for manner, what in AGAIN.items():
        omissions = Omissions()
        omissions.note(what, "", failed)
        again = replace(specimen, manner=manner, omissions=omissions)
        off = EAGER if manner.watched else QUIET
        try:
            with intact(specimen.model, specimen.batch, specimen.loss, off=off) as kept, kept:
                return examine(again)
        except Exception as error:
            failed = error
    assert isinstance(failed, Exception)
    raise failed


def read_specimen(
    model: Any,
    batch: Any,
    loss: Callable[..., Any] | None = None,
    *,
    optimizer: Any = None,
    theory: bool = False,
) -> Specimen:
    """What is examined; CheckError says why the model is none that could train."""
    if not isinstance(model, nn.Module):
        raise CheckError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module; pass the module itself"
        )
    bare = unwrap(model)
    modules = name_modules(bare, remove_duplicate=False)  # expensive next to a small network's forward
    named = name_parameters(bare) if is_layer(bare) else parameters.name_parameters(modules)
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
    return Specimen(bare, modules, named, {}, batch, loss, optimizer, theory)


def assemble(
    specimen: Specimen, forward: ForwardPass, backward: BackwardPass, heard: Mapping[str, str]
) -> Trace:
    """The Trace of two passes; `heard`: warnings, and their lines."""
    watched, call, attempt = forward.watched, forward.call, specimen.omissions.attempt
    wanted = specimen.manner.signs
    signs = read_signs(specimen, forward, backward) if wanted else {}
    rows = sites.inputs(
        call, backward.flow, specimen.omissions, forward.entering, watched.uneven_axis, wanted
    )
    nodes, axes, places = attempt(
        "the operations", "", lambda: node_sites.nodes(call, watched, backward), lambda: ([], [], {})
    )
    rows += nodes
    rows += attempt("steps of recurrences", "", lambda: sites.steps(backward.recurrences), list)
    rows += (
        attempt(
            "what the loss reads", "", lambda: outputs.outputs(watched, forward.loss, backward.graph), list
        )
        if forward.read is None and wanted
        else forward.read or ()
    )
    facts = _facts(specimen, forward, backward) | signs
    if heard:
        facts["warned"] = dict(heard)
    apart: dict[str, Apart] = attempt(
        "what is kept from the loss on purpose",
        "",
        lambda: find_apart(specimen, forward, backward, facts["graph_cuts"]),
        dict,
    )
    rows += parameters.read(specimen, watched, backward, apart)
    found = sites.assemble(rows, axes, facts)
    theory = attempt(
        "what theory expects", "", lambda: _compare(found, forward, backward, places), lambda: None
    )
    facts = found.facts if theory is None else {**found.facts, "theory": theory}
    if left_out := specimen.omissions.sentences():
        facts = {**facts, "unmeasured": left_out}
    return replace(found, facts=facts)


def _compare(
    found: Trace, forward: ForwardPass, backward: BackwardPass, places: Mapping[int, int]
) -> Comparison | None:
    """What theory expects of the program that ran; None without one, or without a depth axis."""
    watched = forward.watched
    if not isinstance(watched, Taped) or watched.gaps or found.depth() is None:
        return None
    tensors = _tensors(watched, forward, backward, places)
    return Comparison(found, Sketch(watched.program(forward.output), tensors))


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


def _read_loss(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> TraceFacts:
    """What the loss does with output and target: broadcasts, terms, a flipped sign, what it applies again."""
    attempt, watched, graph = specimen.omissions.attempt, forward.watched, backward.graph
    facts: TraceFacts = {}
    met: list[BroadcastFacts] = attempt(
        "shapes in the loss", "", lambda: watched.loss_calls.find_broadcasts(graph), list
    )
    rising: list[AscentFacts] = attempt(
        "the sign of the loss",
        "",
        lambda: find_ascents(
            forward.root, watched.loss_calls, graph if specimen.manner.again else None, forward.output
        ),
        list,
    )
    again: list[tuple[str, str, str]] = attempt(
        "what is normalised again", "", lambda: outputs.find_repeated(watched, graph), list
    )
    wishes: list[WishFacts] = attempt(
        "what the loss weighs",
        "",
        lambda: find_wishes(
            forward.root if specimen.manner.again else None,
            watched.operations,
            watched.loss_calls,
            graph,
            forward.output,
        ),
        list,
    )
    if rising == [] and specimen.manner.again:
        turned: list[AscentFacts] = attempt(
            "signs that are turned twice",
            "",
            lambda: find_turned_twice(forward.root, watched.loss_calls, graph),
            list,
        )
        facts |= {"turned_twice": turned} if turned else {}
    if wishes:
        facts["wishes"] = wishes
    if met:
        facts["broadcasts"] = met
    if rising:
        facts["ascents"] = rising
    if again:
        facts["normalised_again"] = again
    if graph and forward.overflow is None and specimen.manner.again:
        terms, pairs = attempt(
            "terms of the loss",
            "",
            lambda: measure_terms(forward.root, watched, specimen.parameters),
            lambda: ([], []),
        )
        if pairs:
            facts["terms"], facts["pairs"] = terms, pairs
    return facts


def _facts(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> TraceFacts:
    some, watched = next(iter(specimen.parameters.values())), forward.watched
    dtypes = {o.facts.get("dtype", "") for o in watched.operations}
    cuts: list[GraphCut] = specimen.omissions.attempt(
        "what leaves the graph", "", lambda: find_blame(specimen, forward, backward), list
    )
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
        "graph_cuts": cuts,
        "assumptions": outputs.assumptions(forward.objective, forward.overflow is not None),
        "loss_overflow": forward.overflow is not None,
    }
    if specimen.manner.signs:
        facts |= _read_loss(specimen, forward, backward)
    if not math.isfinite(facts["loss"]) or backward.broken:
        facts["target_nonfinite"] = _is_target_broken(specimen.batch, forward)
        facts |= {"aside": watched.aside[0]} if watched.aside else {}
    if backward.precision:
        facts["precision"] = backward.precision
    if specimen.optimizer is not None:
        facts["stale"] = specimen.omissions.attempt(
            "the optimizer", "", lambda: parameters.count_stale(specimen), int
        )
        if specimen.manner.again:  # else the loss's own sign is not known
            facts["maximizes"] = any(group.get("maximize") for group in specimen.optimizer.param_groups)
    if backward.hooks:
        facts["hooks"] = list(backward.hooks)
    if backward.severed:
        facts["severed"] = dict(backward.severed)
    return facts
