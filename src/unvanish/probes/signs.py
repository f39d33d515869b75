"""What is looked at only if the forward gave a sign of it: leaks, dead terms, routers, foreign leaves.

Notable: passes of their own are left out if the model is not run openly, for its graph may bear only one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from unvanish.core.facts import ForcedFacts, TraceFacts, WrongGradientFacts
from unvanish.core.loss_facts import SoftmaxFacts
from unvanish.probes.answers import find_answer
from unvanish.probes.bottom import find_bottom
from unvanish.probes.class_numbers import find_class_numbers
from unvanish.probes.custom import find_stored, find_wrong_gradients, keep_stored
from unvanish.probes.dead_terms import find_dead_terms
from unvanish.probes.dropouts import find_noise
from unvanish.probes.events import Operation
from unvanish.probes.expectations import find_expectations
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

Readings = dict[str, tuple[str, Callable[[], Any]]]  # by fact: what it is, in words, and what finds it


def read_signs(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> TraceFacts:
    """The facts of those that are there; nothing of a forward that was not watched."""
    watched = forward.watched
    if not specimen.manner.watched:
        return {}
    readings: Readings = {
        "foreign": ("leaves that are no parameters", lambda: find_foreign(specimen, forward, backward)),
        "dead_terms": (
            "terms of the loss without a gradient",
            lambda: find_dead_terms(forward, backward),
        ),
        "routers": ("routers of experts", lambda: find_routers(watched)),
        "filled": ("padding among targets", lambda: find_filled(forward)),
        "class_numbers": ("numbers of classes", lambda: find_class_numbers(forward, backward)),
        "summed": ("whether the loss is a sum", lambda: find_sum(specimen, forward)),
        "soft_routers": ("soft routers", lambda: find_soft_routers(forward, backward)),
        "misaligned": (
            "rows of output and targets",
            lambda: find_misaligned(watched.loss_calls, backward.graph),
        ),
        "near_pole": (
            "powers of what is next to zero",
            lambda: find_near_pole(watched.loss_calls, backward.graph),
        ),
    }
    found = _attempt_all(specimen, readings) | {
        "flat_curvatures": watched.derivatives.flat,
        "swaps": watched.mixing.swaps,
        "turned_estimators": watched.departures.turned,
        "dropouts": watched.dropouts.shares,
        "idle_dropouts": watched.dropouts.idle,
    }
    facts = _keep(found)
    if specimen.manner.open:
        return facts | _read_passes(specimen, forward, backward)
    for operation in watched.operations:
        operation.facts.pop("forced", None)  # a sign that only a forward in evaluation mode would prove
    return facts


def _read_passes(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> TraceFacts:
    """What takes a pass of its own: samples that are mixed, and gradients that somebody wrote."""
    readings: Readings = {
        "leak": ("whether samples are mixed", lambda: find_leak(specimen, forward, backward)),
        "wrong_gradients": (
            "gradients written by hand",
            lambda: _judge_functions(specimen, forward, backward),
        ),
        "answer": ("whether targets are the input", lambda: find_answer(forward)),
        "bottom": (
            "whether the loss has a least value",
            lambda: find_bottom(specimen, forward, backward),
        ),
        "flat_paths": ("what has no slope", lambda: find_flat_paths(specimen, forward, backward)),
        "misplaced": ("the axes of softmaxes", lambda: _name_misplaced(specimen, forward)),
        "forced_dropouts": ("what is noisy in evaluation", lambda: _confirm_noise(specimen, forward)),
    }
    return _keep(_attempt_all(specimen, readings))


def _attempt_all(specimen: Specimen, readings: Readings) -> dict[str, Any]:
    """What each reading gives; None for one that fails, which is noted."""
    attempt = specimen.omissions.attempt
    return {key: attempt(what, "", find, lambda: None) for key, (what, find) in readings.items()}


def _keep(found: Mapping[str, Any]) -> TraceFacts:
    return cast(TraceFacts, {key: value for key, value in found.items() if value})


def _name_misplaced(specimen: Specimen, forward: ForwardPass) -> list[SoftmaxFacts]:
    """Softmaxes along the wrong axis, with their lines, for which the forward runs once more."""
    found = find_misplaced(forward.watched) or find_expectations(forward.watched)
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
