"""What a loss function reads: the last activation, how steep it is there, and how wrong the output is."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from unvanish.core.facts import OutputFacts
from unvanish.core.trace import Site
from unvanish.probes import operations, slopes
from unvanish.probes.events import ModuleCall, Operation
from unvanish.probes.forward import Forward
from unvanish.probes.passes import Measured

OWN = {  # output functions that a loss applies itself
    "cross_entropy": ("softmax", "sigmoid"),
    "binary_cross_entropy_with_logits": ("sigmoid", "softmax"),
}
REACH = 8  # views and casts between the activation and the loss, at most


def outputs(watched: Forward, value: Tensor) -> list[Measured]:
    """One site for each call of a known loss function, else one for the loss itself."""
    found: list[Measured] = []
    for o in watched.operations:
        if "reading" not in o.handles:
            continue
        kind = operations.LOSSES[o.kind]
        facts: OutputFacts = {"value": float(value.detach()), **o.handles["reading"]}
        last = _find_activation(o, watched)
        facts["activation"] = "" if last is None else last.kind
        if last is not None:
            facts["site"] = identify(last)[0]
            facts["output_slope"] = _output_slope(last)
        facts["double"] = last is not None and last.kind in OWN.get(kind, ())
        found.append((Site.output(kind, len(found), facts), {}))
    return found or [(Site.output("loss", 0, {"value": float(value.detach())}), {})]


def read_by_loss(watched: Forward) -> set[int]:
    """The orders of the activations that a loss function reads."""
    last = [_find_activation(o, watched) for o in watched.operations if "reads" in o.handles]
    return {activation.order for activation in last if activation is not None}


def _find_activation(loss: Operation, watched: Forward) -> Operation | None:
    """The activation or softmax whose result a loss function reads, through views and casts."""
    node: Any = loss.handles.get("reads")
    for _ in range(REACH):
        if node is None or type(node).__name__ == "AccumulateGrad":
            return None
        owner = watched.owner(node._sequence_nr())
        if (
            isinstance(owner, Operation)
            and owner.kind not in operations.VIEWS
            and owner.kind not in ("clamp", "getitem", "index", "log")
        ):
            return owner if owner.family == "activation" or owner.kind in ("softmax", "log_softmax") else None
        edges = [b for b, _ in node.next_functions if b is not None]
        node = edges[0] if len(edges) == 1 else None
    return None


def _output_slope(last: Operation) -> float:
    """The mean slope of an output function, relative to its steepest; NaN if unknown."""
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
