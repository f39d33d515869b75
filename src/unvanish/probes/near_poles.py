"""Powers below one, in the loss, of a probability that has all but reached zero: the next step divides by it.

Notable: d p^a / dp is a p^(a - 1), infinite at p = 0, and a saturated sigmoid or softmax gives an exact 0, or
an exact 1 of which 1 - p is made. A number that is added before the power keeps it away, a clamp too.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unvanish.core.loss_facts import NearPoleFacts
from unvanish.probes.events import OperationCall
from unvanish.probes.graph import Graph
from unvanish.probes.loss_calls import LossCalls

NEAR = 1e-7  # the rounding of a number of size one in float32: what is below it is zero at the next step
NOTHING = 1e-20  # the same where a number is added: an epsilon, unless it is 0
ADD = "AddBackward0"
PROBABILITIES = ("SigmoidBackward0", "SoftmaxBackward0")
PASSED = {
    f"{name}Backward{i}"
    for name in ("Rsub", "Sub", "Squeeze", "Unsqueeze", "View", "Select", "Gather", "Index", "Slice", "Mul")
    for i in range(2)
}
STEPS = 8


def find_near_pole(calls: LossCalls, graph: Graph | None) -> NearPoleFacts | None:
    """The first such power; None without one."""
    for call, operation in calls.made if graph is not None else ():
        if graph and call.kind in ("pow", "sqrt", "float_power") and operation.nodes[0] in graph.index:
            base, exponent = call.args[0] if call.args else None, _read_exponent(call)
            if not isinstance(base, Tensor) or not base.numel() or not 0 < exponent < 1:
                continue
            added = _count_added(base)
            if added >= 0:
                least = float(base.detach().min())
                if 0 <= least < (NOTHING if added else NEAR):
                    source = calls.lines.get(operation.order, "")
                    return {"kind": call.kind, "exponent": exponent, "least": least, "source": source}
    return None


def _read_exponent(call: OperationCall) -> float:
    given = 0.5 if call.kind == "sqrt" else call.args[1] if len(call.args) > 1 else 1.0
    return float(given) if isinstance(given, (int, float)) else 1.0


def _count_added(base: Tensor) -> int:
    """How many numbers are added to a probability that a sigmoid or a softmax made; -1 if none made it."""
    node: Any = base.grad_fn
    added = 0
    for _ in range(STEPS):
        name = type(node).__name__
        if name in PROBABILITIES:
            return added
        edges = [n for n, _ in node.next_functions if n is not None] if node is not None else []
        if len(edges) != 1 or name not in (*PASSED, ADD):
            return -1
        added += name == ADD
        node = edges[0]
    return -1
