"""What a loss function reads: the last activation, how steep it is there, and how wrong the output is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unvanish.core.facts import OutputFacts
from unvanish.core.trace import Site
from unvanish.probes import operations, slopes
from unvanish.probes.by_hand import find_by_hand, find_others
from unvanish.probes.events import ModuleCall, Operation
from unvanish.probes.fit import CATEGORIES, IGNORED, is_compared, read_axis, read_fit
from unvanish.probes.floors import read_floor
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph
from unvanish.probes.handles import Handles
from unvanish.probes.layout import is_crossed
from unvanish.probes.passes import Measured
from unvanish.probes.temperature import Cosines, find_cosines, find_factor

OWN = {  # output functions that a loss applies itself
    "cross_entropy": ("softmax", "sigmoid"),
    "binary_cross_entropy_with_logits": ("sigmoid", "softmax"),
    "poisson_nll_loss": ("exp", "softplus", "relu", "sigmoid", "softmax"),
}
AGAIN = {  # what normalises scores, and the functions whose result is no score
    "log_softmax": ("softmax", "sigmoid"),
    "softmax": ("softmax", "sigmoid"),
    "logsumexp": ("softmax",),
    "exp": ("softmax",),
    "softplus": ("sigmoid", "softmax"),
    "log_sigmoid": ("sigmoid", "softmax"),
    "sigmoid": ("sigmoid", "softmax"),
}
ANYWHERE = ("log_softmax", "logsumexp")  # of probabilities they are no layer of a model
PASSED = (
    "clamp",
    "clamp_min",
    "getitem",
    "index",
    "log",
    "broadcast_tensors",
)  # between the activation and the loss
CHOSEN = ("max", "amax", "gather")  # and these, within the loss
SCORED = ("cross_entropy", "binary_cross_entropy_with_logits")  # they read logits
DIVERGENCES = ("ctc_loss", "kl_div")  # they read logarithms as a whole
SCALED = 5.0  # the largest of probabilities that a number scales, and that are still no logits
LOGARITHMS = ("log", "log1p", "log2", "log10", "xlogy")  # in a loss by hand
REACH = 8  # views and casts between the activation and the loss, at most


def outputs(watched: Forward, value: Tensor, graph: Graph | None = None) -> list[Measured]:
    """One site for each call of a known loss function; else one for the loss itself, and one for what it
    subtracts by hand.
    """
    found: list[Measured] = []
    for o in watched.operations:
        if "reading" in o.handles:
            kind = operations.LOSSES[o.kind]
            found.append(_describe(kind, len(found), value, o.handles, watched))
    more = find_others(watched.loss_calls, graph)
    if not found and not more:
        more = find_by_hand(watched.loss_calls, graph)
        whole: OutputFacts = {"value": float(value.detach()), **_read_unit(watched, graph)}
        whole |= _read_cosines(watched, graph)
        found.append((Site.output("loss", 0, whole), {}))
    return found + [
        _describe(k, i, value, handles, watched) for i, (k, handles) in enumerate(more, len(found))
    ]


def _read_unit(watched: Forward, graph: Graph | None) -> OutputFacts:
    """A softmax over an axis of one that ends the model; nothing if there is none."""
    made = [o for o in watched.operations if o.order < watched.loss_order and o.kind not in operations.VIEWS]
    last = made[-1] if made else None
    if last is None or last.kind not in ("softmax", "log_softmax") or not _leads(graph, last):
        return {}
    if read_axis(last)[1] != 1:
        return {}
    return {"activation": last.kind, "site": identify(last)[0], "classes": 1}


def _read_cosines(watched: Forward, graph: Graph | None) -> OutputFacts:
    """The factor of cosines that a loss written by hand normalises."""
    own = [o for o in watched.operations if o.order >= watched.loss_order and _leads(graph, o)]
    logged = any(o.kind == "log" for o in own)
    for o in own:
        if o.kind in ("log_softmax", "logsumexp") or (o.kind == "exp" and logged):
            cosines = find_cosines(_input(o))
            shape = () if cosines is None else tuple(_input(o)._input_metadata[0].shape)
            if cosines is not None and len(shape) > 1:
                return {**_describe_cosines(cosines), "classes": max(shape), "site": o.kind}
    return {}


def _describe_cosines(cosines: Cosines) -> OutputFacts:
    return {"cosine_scale": abs(cosines.factor), "cosine_learned": cosines.learned}


def _describe(kind: str, call: int, value: Tensor, handles: Handles, watched: Forward) -> Measured:
    """The site of one call of a loss: what it reads, what made that, and how both fit the targets."""
    facts: OutputFacts = {"value": float(value.detach()), **handles["reading"]}
    made, passed = find_maker(handles.get("reads"), watched)
    origin, last = made, made if made is not None and _is_output_function(made, kind) else None
    if "mul" in passed or "div" in passed:  # what is scaled has another range
        own = last is not None and last.kind in OWN.get(kind, ())
        last, made = (last if own and facts.get("logit_max", math.inf) <= SCALED else None), None
    facts["given"] = handles.get("given", kind == "difference")
    facts["activation"] = "" if last is None else last.kind
    if last is not None:
        facts["site"] = identify(last)[0]
        facts["output_slope"] = _output_slope(last)
    facts["double"] = last is not None and last.kind in OWN.get(kind, ())
    logged = "log" in passed and kind not in (*CATEGORIES, *DIVERGENCES, "binary_likelihood")
    fitted = None if logged else last or passed.get("clamp") or made
    ignored = handles["weighing"].ignored if "weighing" in handles else IGNORED
    facts |= read_fit(kind, *handles["compared"], fitted, handles.get("unreduced", False), ignored)
    if kind in (*SCORED, *CATEGORIES):
        facts |= read_floor(handles.get("reads"), watched, handles["compared"][0], kind not in SCORED)
    if "weighing" in handles and not handles["compared"][1].is_floating_point():
        facts["left_out"] = _count_left_out(*handles["compared"], ignored, watched.batch)
    if is_compared(origin):
        facts.pop("labels", None)
    if kind == "kl_div" and sum(o.kind == kind for o in watched.operations) > 1:
        facts.pop("unnormalised", None)  # that of yes and that of no together
    facts |= _read_layout(kind, handles, made, watched)
    if "swapped" in handles:
        facts["swapped"] = handles["swapped"]
        facts["raw"] = facts.get("raw") or "probabilities"
    if "short" in handles:
        facts["short"] = handles["short"]
    if fitted is not None and "site" not in facts:
        facts["site"] = identify(fitted)[0]
    return Site.output(kind, call, facts), {}


def _count_left_out(x: Tensor, y: Tensor, ignored: int, batch: int | None) -> float:
    """The share of labels, one a sample, that are left out although they are of a class."""
    own = y.ndim == 1 and y.numel() == batch and 0 <= ignored < x.shape[min(1, x.ndim - 1)]
    return float((y == ignored).double().mean()) if own else 0.0


def _read_layout(kind: str, handles: Handles, made: Operation | None, watched: Forward) -> OutputFacts:
    """Whether the classes lie along the layer's own axis, and the factor of logits that are cosines."""
    x, reads = handles["compared"][0], handles.get("reads")
    found: OutputFacts = {}
    if kind in SCORED and (cosines := find_cosines(reads)) is not None:
        found = _describe_cosines(cosines)
    elif kind in SCORED and 0 < abs(factor := find_factor(reads)) < 1:
        found["logit_factor"] = abs(factor)
    if kind not in ("cross_entropy", "nll_loss") or x.ndim < 2 or reads is None:
        return found
    if made is not None and made.kind in ("softmax", "log_softmax", "relu"):
        made = find_maker(_input(made), watched)[0]
    if made is not None and is_crossed(reads, x, made, 1):
        found["crossed"] = True
    return found


def find_repeated(watched: Forward, graph: Graph | None) -> list[tuple[str, str, str]]:
    """Probabilities that are normalised again, by torch's functions or by hand in the loss.

    The path of the function that made them, its kind, and that of the second one.
    """
    found: list[tuple[str, str, str]] = []
    own = [o for o in watched.operations if o.order < watched.loss_order and o.kind not in operations.VIEWS]
    last = own[-1] if own and own[-1].kind == "softmax" else None  # what the model itself ends in
    for o in watched.operations if graph is not None else ():
        inside = o.order < watched.loss_order and o is not last and o.kind not in ANYWHERE
        if o.kind not in AGAIN or inside:
            continue
        maker, passed = find_maker(_input(o), watched)
        twice = AGAIN[o.kind] if o.kind != "exp" or not _is_shared_out(o, watched) else AGAIN["softmax"]
        if maker is not None and maker.kind in twice and "log" not in passed and _leads(graph, o):
            found.append((identify(maker)[0], maker.kind, o.kind))
    return found


def _is_shared_out(exponential: Operation, watched: Forward) -> bool:
    """Whether an exponential is divided by its own sum, as in a softmax by hand."""
    node = exponential.nodes[0]
    for o in watched.operations[exponential.order + 1 : exponential.order + REACH]:
        below: list[Any] = [n for n, _ in o.nodes[0].next_functions] if o.kind == "div" else []
        if len(below) == 2 and below[0] is node and type(below[1]).__name__.startswith("Sum"):
            return any(n is node for n, _ in below[1].next_functions)
    return False


def _input(operation: Operation) -> Any:
    return next((node for node, _ in operation.nodes[0].next_functions if node is not None), None)


def _leads(graph: Graph | None, operation: Operation) -> bool:
    """Whether the loss reaches an operation."""
    return graph is not None and operation.nodes[0] in graph.index


def read_by_loss(watched: Forward) -> set[int]:
    """The orders of the activations that a loss function reads, or a logarithm in a loss by hand.

    The logarithm's slope makes up for theirs: d log sigmoid(z) / dz is 1 where the sigmoid is flat below.
    """
    makers = [find_maker(o.handles["reads"], watched)[0] for o in watched.operations if "reads" in o.handles]
    found = {maker.order for maker in makers if maker is not None and _is_output_function(maker)}
    for o in watched.operations[watched.loss_order :]:
        if o.kind in LOGARITHMS:
            found |= _find_output_functions(o, watched)
    return found


def _find_output_functions(logarithm: Operation, watched: Forward) -> set[int]:
    """The orders of the activations from which a logarithm in the loss is a few operations away."""
    found: set[int] = set()
    todo, seen = [(_input(logarithm), REACH)], set()
    while todo:
        node, left = todo.pop()
        if node is None or node in seen or not left or type(node).__name__ == "AccumulateGrad":
            continue
        seen.add(node)
        owner = watched.owner(node._sequence_nr())
        if isinstance(owner, Operation) and _is_output_function(owner):
            found.add(owner.order)
        elif not isinstance(owner, Operation) or owner.family not in ("layer", "norm", "attention"):
            todo += [(before, left - 1) for before, _ in node.next_functions]
    return found


def _is_output_function(operation: Operation, loss: str = "") -> bool:
    rate = operation.kind == "exp" and loss == "poisson_nll_loss"
    return rate or operation.family == "activation" or operation.kind in ("softmax", "log_softmax")


def find_maker(node: Any, watched: Forward) -> tuple[Operation | None, dict[str, Operation]]:
    """The operation that made what a loss reads, and those of PASSED between them, by kind."""
    passed: dict[str, Operation] = {}
    for _ in range(REACH):
        if node is None or type(node).__name__ == "AccumulateGrad":
            return None, passed
        owner = watched.owner(node._sequence_nr())
        if isinstance(owner, Operation):
            late = owner.order >= watched.loss_order
            if owner.kind in PASSED or (late and owner.kind in CHOSEN) or _is_number(owner, node, passed):
                passed[owner.kind] = owner
            elif owner.kind not in operations.VIEWS:
                return owner, passed
        edges = [b for b, _ in node.next_functions if b is not None]
        node = edges[0] if len(edges) == 1 else None
    return None, passed


def _is_number(owner: Operation, node: Any, passed: Mapping[str, Operation]) -> bool:
    """Whether a small number is added below a logarithm, or a number scales what a loss reads."""
    single = sum(n is not None for n, _ in node.next_functions) == 1
    return single and (owner.kind in ("mul", "div") or (owner.kind == "add" and "log" in passed))


def _output_slope(last: Operation) -> float:
    """The mean slope of an output function, relative to its steepest; NaN if unknown."""
    if last.handles.get("packed"):
        return math.nan
    if last.kind in operations.SQUASHING:
        return slopes.mean(last) / operations.SQUASHING[last.kind]
    node: Any = last.nodes[0]
    if last.kind == "softmax" and "_saved_result" in dir(node):
        p = node._saved_result.detach().double()
        return float((p * (1 - p)).sum(-1).mean())
    return math.nan


def identify(owner: Operation | ModuleCall) -> tuple[str, str]:
    """The path and the kind of a site; in a module of several operations the path ends in the kind."""
    if isinstance(owner, ModuleCall):
        return owner.path, type(owner.module).__name__.lower()
    own = type(owner.caller.module).__module__.startswith("torch.nn") and not any(
        owner.caller.module.children()
    )
    path = owner.caller.path
    return (path if own else f"{path}.{owner.kind}" if path else owner.kind), owner.kind


def loss_kind(watched: Forward) -> str:
    """The loss functions called, by name."""
    return ", ".join(
        dict.fromkeys(operations.LOSSES[o.kind] for o in watched.operations if "reading" in o.handles)
    )


def assumptions(kind: str, overflowed: bool) -> list[str]:
    """What had to be assumed, in sentences."""
    if not overflowed and kind != "random cotangent":
        return []
    reason = "the loss overflows" if overflowed else "no loss was given"
    return [f"{reason}: the gradient of a random unit cotangent at the output was followed instead"]
