"""A loss that is the plain sum over a batch: seen in the graph, whatever its size.

Notable:
- Only a single sum counts: terms that are added are in proportion to each other, as those of a variational
  bound. A quotient by a tensor (tokens, boxes, a mask) is an average, and so is a factor of about 1 / count.
- A product under the sum weighs its parts, as rewards and masks do, and is left alone; that of a number with
  itself is its square.
- A loop over the samples adds as many numbers of one making as there are samples.
"""

from __future__ import annotations

from collections.abc import Mapping
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
PRODUCTS = ("einsum", "dot", "vdot", "inner", "matmul")
NORMS = ("norm", "linalg_norm", "linalg_vector_norm", "frobenius_norm")
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
    calls = forward.watched.loss_calls
    if call.kind in operations.LOSSES and call.arguments.get("reduction") in SUM:
        return max((t.numel() for t in tensors_in(call.args[1:2], 1)), default=0)
    makers = {id(c.result): c for c, _ in calls.made}
    if (squared := _find_square(call, makers)) is not None:
        return squared.numel() if calls.is_mixed(squared) else None
    if call.kind == "add":
        return _count_terms(call, makers, forward)
    part = call.args[0] if call.kind == "sum" and call.args else None
    if not isinstance(part, Tensor) or not calls.is_mixed(part):
        return None
    made = makers.get(id(part))
    for _ in range(STEPS):
        if made is None or made.kind not in ("neg", "stack", "cat", *operations.VIEWS):
            break
        made = makers.get(id(next(iter(tensors_in(made.args, 2)), None)))
    own = made is not None and (made.kind in PARTS or (made.kind == "mul" and _is_square(made)))
    return part.numel() if own else None


def _find_square(call: OperationCall, makers: Mapping[int, OperationCall]) -> Tensor | None:
    """The numbers of which a call makes the sum of their squares: by a product, or by a squared norm."""
    if call.kind in PRODUCTS and isinstance(call.result, Tensor) and call.result.numel() == 1:
        tensors = list(tensors_in(call.args, 2))
        return tensors[0] if len(tensors) == 2 and tensors[0] is tensors[1] else None
    if call.kind not in ("pow", "square", "mul") or (call.kind == "mul" and not _is_square(call)):
        return None
    norm = makers.get(id(call.args[0]))
    if norm is None or norm.kind not in NORMS or norm.result.numel() != 1:
        return None
    return next(iter(tensors_in(norm.args, 1)), None)


def _is_square(call: OperationCall) -> bool:
    return len(call.args) > 1 and call.args[0] is call.args[1]


def _count_terms(
    call: OperationCall, makers: Mapping[int, OperationCall], forward: ForwardPass
) -> int | None:
    """How many numbers a loop over the samples adds up one by one, each made in the same way."""
    todo: list[OperationCall | None] = [call]
    kinds: list[str] = []
    while todo:
        made = todo.pop()
        if made is None:
            return None
        if made.kind == "add" and len(made.args) > 1:
            todo += [makers.get(id(t)) for t in made.args if isinstance(t, Tensor)]
        elif forward.watched.loss_calls.is_mixed(made.result):
            kinds.append(made.kind)
        else:
            return None
    return len(kinds) if len(set(kinds)) == 1 and len(kinds) >= (forward.call.batch_size or 0) else None


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
