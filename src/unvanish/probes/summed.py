"""A loss that is the plain sum over a batch: seen in the graph, whatever its size.

Notable:
- Only a single sum counts: terms that are added are in proportion to each other, as those of a variational
  bound. A quotient by a tensor (tokens, boxes, a mask) is an average, and so is a factor of about 1 / count.
- A product under the sum weighs its parts, as rewards and masks do, and is left alone.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unvanish.core.loss_facts import SummedFacts
from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import OperationCall
from unvanish.probes.passes import ForwardPass, Specimen

FEWEST = 32  # samples: of fewer a sum is seldom too long
SUM = (2, "sum")  # torch's number, and name, for this reduction
STEPS = 8  # factors, signs and views between the sum and the loss
SPARED = (
    "adam",
    "rms",
    "ada",
    "lion",
    "lamb",
    "muon",
    "sign",
    "prodigy",
    "shampoo",
)  # blind to the loss's scale
NEAR = 4.0  # times the samples, or a fourth of them: what divides by such a number averages
PARTS = (*operations.LOSSES, "pow", "square", "abs", "gather", "getitem", "index")


def find_sum(specimen: Specimen, forward: ForwardPass) -> SummedFacts | None:
    """The sum that a loss is; None if it averages, adds terms up, or if its size makes no difference."""
    name = "" if specimen.optimizer is None else type(specimen.optimizer).__name__.lower()
    calls, batch = forward.watched.loss_calls, forward.call.batch_size or 0
    if batch < FEWEST or any(part in name for part in SPARED):
        return None
    known = {o.nodes[0]: (c, o) for c, o in calls.made}
    node: Any = forward.root.grad_fn
    factor = 1.0
    for _ in range(STEPS):
        if (
            type(node).__name__ in ("ViewBackward0", "ReshapeAliasBackward0", "AliasBackward0")
            and node not in known
        ):
            node = node.next_functions[0][0]
        if node not in known:
            return None
        call, operation = known[node]
        if (count := _count(call, forward)) is not None:
            share = abs(1 / factor) if factor else 0.0
            if count < batch or batch / NEAR <= share <= count * NEAR:
                return None
            return {"samples": batch, "count": count, "source": calls.lines.get(operation.order, "")}
        number = _read_factor(call)
        if number is None:
            return None
        factor *= number
        node = next((n for n, _ in node.next_functions if n is not None), None)
    return None


def _count(call: OperationCall, forward: ForwardPass) -> int | None:
    """How many numbers a call adds up; None if it is no sum over what answers entered."""
    if call.kind in operations.LOSSES and call.arguments.get("reduction") in SUM:
        return max((t.numel() for t in tensors_in(call.args[1:2], 1)), default=0)
    part = call.args[0] if call.kind == "sum" and call.args else None
    if not isinstance(part, Tensor) or not forward.watched.loss_calls.is_mixed(part):
        return None
    makers = {id(c.result): c for c, _ in forward.watched.loss_calls.made}
    made = makers.get(id(part))
    for _ in range(STEPS):
        if made is None or made.kind not in ("neg", *operations.VIEWS):
            break
        made = makers.get(id(made.args[0]))
    return part.numel() if made is not None and made.kind in PARTS else None


def _read_factor(call: OperationCall) -> float | None:
    """The number that a call multiplies with; None if it does anything else."""
    if call.kind == "neg" or call.kind in operations.VIEWS:
        return 1.0
    numbers = [a for a in call.args if isinstance(a, (int, float)) and not isinstance(a, bool)]
    tensors = [a for a in call.args if isinstance(a, Tensor)]
    if len(tensors) != 1 or len(numbers) != 1 or call.kind not in ("mul", "div", "add", "sub", "rsub"):
        return None
    if call.kind in ("mul", "div"):
        number = float(numbers[0])
        return number if call.kind == "mul" else (1 / number if number else None)
    return 1.0
