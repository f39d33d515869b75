"""What is looked at only if the forward gave a sign of it: leaks, dead terms, routers, foreign leaves.

Notable: passes of their own are left out if the model is not run openly, for its graph may bear only one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from unvanish.core.facts import (
    DeadTermFacts,
    FlatPathFacts,
    ForcedFacts,
    ForeignFacts,
    LeakFacts,
    RouterFacts,
    TraceFacts,
    WrongGradientFacts,
)
from unvanish.core.loss_facts import (
    AnswerFacts,
    BottomFacts,
    ClassNumberFacts,
    FilledFacts,
    NearPoleFacts,
    SoftmaxFacts,
    SoftRouterFacts,
    SummedFacts,
    SwapFacts,
)
from unvanish.probes.answers import find_answer
from unvanish.probes.bottom import find_bottom
from unvanish.probes.class_numbers import find_class_numbers
from unvanish.probes.custom import find_stored, find_wrong_gradients, keep_stored
from unvanish.probes.dead_terms import find_dead_terms
from unvanish.probes.dropouts import find_noise
from unvanish.probes.events import Operation
from unvanish.probes.filled import find_filled
from unvanish.probes.flat_paths import find_flat_paths
from unvanish.probes.foreign import find_foreign
from unvanish.probes.forward import Forward
from unvanish.probes.leaks import find_leak
from unvanish.probes.misaligned import find_misaligned
from unvanish.probes.near_poles import find_near_pole
from unvanish.probes.passes import BackwardPass, ForwardPass, Specimen
from unvanish.probes.routers import find_routers
from unvanish.probes.run_forward import find_lines
from unvanish.probes.soft_routers import find_soft_routers
from unvanish.probes.softmax_axes import find_misplaced
from unvanish.probes.summed import find_sum


def read_signs(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> TraceFacts:
    """The facts of those that are there; nothing of a forward that was not watched."""
    attempt, watched = specimen.omissions.attempt, forward.watched
    facts: TraceFacts = {}
    if not specimen.manner.watched:
        return facts
    foreign: list[ForeignFacts] = attempt(
        "leaves that are no parameters", "", lambda: find_foreign(specimen, forward, backward), list
    )
    dead: list[DeadTermFacts] = attempt(
        "terms of the loss without a gradient", "", lambda: find_dead_terms(forward, backward), list
    )
    routers: list[RouterFacts] = attempt("routers of experts", "", lambda: find_routers(watched), list)
    filled: FilledFacts | None = attempt(
        "padding among targets", "", lambda: find_filled(forward), lambda: None
    )
    if filled:
        facts["filled"] = filled
    numbers: ClassNumberFacts | None = attempt(
        "numbers of classes", "", lambda: find_class_numbers(forward, backward), lambda: None
    )
    if numbers:
        facts["class_numbers"] = numbers
    summed: SummedFacts | None = attempt(
        "whether the loss is a sum", "", lambda: find_sum(specimen, forward), lambda: None
    )
    soft: list[SoftRouterFacts] = attempt(
        "soft routers", "", lambda: find_soft_routers(forward, backward), list
    )
    if soft:
        facts["soft_routers"] = soft
    if summed:
        facts["summed"] = summed
    if foreign:
        facts["foreign"] = foreign
    if dead:
        facts["dead_terms"] = dead
    if watched.derivatives.flat:
        facts["flat_curvatures"] = watched.derivatives.flat
    if routers:
        facts["routers"] = routers
    misaligned: list[SwapFacts] = attempt(
        "rows of output and targets", "", lambda: find_misaligned(watched.loss_calls, backward.graph), list
    )
    if misaligned:
        facts["misaligned"] = misaligned
    near: NearPoleFacts | None = attempt(
        "powers of what is next to zero",
        "",
        lambda: find_near_pole(watched.loss_calls, backward.graph),
        lambda: None,
    )
    if near:
        facts["near_pole"] = near
    if watched.mixing.swaps:
        facts["swaps"] = watched.mixing.swaps
    if watched.dropouts.shares:
        facts["dropouts"] = watched.dropouts.shares
    if watched.dropouts.idle:
        facts["idle_dropouts"] = watched.dropouts.idle
    if specimen.manner.open:
        return facts | _read_passes(specimen, forward, backward)
    for operation in watched.operations:
        operation.facts.pop("forced", None)  # a sign that only a forward in evaluation mode would prove
    return facts


def _read_passes(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> TraceFacts:
    """What takes a pass of its own: samples that are mixed, and gradients that somebody wrote."""
    attempt = specimen.omissions.attempt
    facts: TraceFacts = {}
    leak: LeakFacts | None = attempt(
        "whether samples are mixed", "", lambda: find_leak(specimen, forward, backward), lambda: None
    )
    wrong: list[WrongGradientFacts] = attempt(
        "gradients written by hand", "", lambda: _judge_functions(specimen, forward, backward), list
    )
    answer: AnswerFacts | None = attempt(
        "whether targets are the input", "", lambda: find_answer(forward), lambda: None
    )
    if answer:
        facts["answer"] = answer
    bottom: BottomFacts | None = attempt(
        "whether the loss has a least value",
        "",
        lambda: find_bottom(specimen, forward, backward),
        lambda: None,
    )
    if bottom:
        facts["bottom"] = bottom
    flat: list[FlatPathFacts] = attempt(
        "what has no slope", "", lambda: find_flat_paths(specimen, forward, backward), list
    )
    if flat:
        facts["flat_paths"] = flat
    misplaced: list[SoftmaxFacts] = attempt(
        "the axes of softmaxes", "", lambda: _name_misplaced(specimen, forward), list
    )
    if misplaced:
        facts["misplaced"] = misplaced
    noisy: list[ForcedFacts] = attempt(
        "what is noisy in evaluation", "", lambda: _confirm_noise(specimen, forward), list
    )
    if noisy:
        facts["forced_dropouts"] = noisy
    if leak:
        facts["leak"] = leak
    if wrong:
        facts["wrong_gradients"] = wrong
    return facts


def _name_misplaced(specimen: Specimen, forward: ForwardPass) -> list[SoftmaxFacts]:
    """Softmaxes along the wrong axis, with their lines, for which the forward runs once more."""
    found = find_misplaced(forward.watched)
    lines = find_lines(specimen, [order for _, order in found]) if found else {}
    return [{**facts, "line": lines.get(order, ("", ""))[1]} for facts, order in found]


def _confirm_noise(specimen: Specimen, forward: ForwardPass) -> list[ForcedFacts]:
    """Of the dropouts that seem to ignore the mode those that do, by a forward in evaluation mode.

    The normalisations that do not are no longer said to.
    """
    watched, call = forward.watched, forward.call
    norms = [o for o in watched.operations if "forced" in o.facts]
    forced = watched.dropouts.forced
    if not norms and not forced:
        return []
    known = [o.facts.pop("forced") for o in norms]
    lines = find_noise(specimen.model, lambda: call.run(specimen.model))
    for operation, line in zip(norms, known, strict=True):
        if line in lines:
            operation.facts["forced"] = line
    return [facts for facts in forced if facts["line"] in lines]


def _judge_functions(
    specimen: Specimen, forward: ForwardPass, backward: BackwardPass
) -> list[WrongGradientFacts]:
    """Those that were seen in the forward, and those whose `apply` was stored before it."""
    kept, graph = list(forward.custom), backward.graph
    stored = find_stored(graph.nodes, kept) if graph else []
    if stored and graph:
        call = forward.call
        paths = {c: _locate(c, graph.nodes, forward.watched) for c in stored}
        seen = keep_stored(stored, lambda: call.objective(call.run(specimen.model)))
        kept += [replace(one, path=paths[one.function]) for one in seen]
    return find_wrong_gradients(kept)


def _locate(function: Any, nodes: Iterable[Any], watched: Forward) -> str:
    """The module that ran when the first node of a function was made."""
    own = [node for node in nodes if getattr(type(node), "_forward_cls", None) is function]
    numbers = [node._sequence_nr() for node in own]
    owner = watched.owner(min(numbers))
    return owner.caller.path if isinstance(owner, Operation) else owner.path
