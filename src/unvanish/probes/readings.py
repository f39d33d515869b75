"""What is measured of an operation as it runs: a layer's weights, an attention, a loss function."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unvanish.core.facts import AsideFacts
from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.entropy import find_ends, read_fused, read_softmax
from unvanish.probes.events import ModuleCall, Operation, OperationCall
from unvanish.probes.handles import Weighing
from unvanish.probes.lines import find_line
from unvanish.probes.measures import finite
from unvanish.probes.residual import reading

MEMORY = 4  # entries, at least
Statistics = dict[str, float]
CROSS_ENTROPIES = ("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits")


def read_finiteness(operation: Operation, call: OperationCall, result: Tensor) -> None:
    """Whether the result holds a NaN or an infinity, and whether the inputs did.

    A mask that writes infinities does what it is told, and has made none.
    """
    inputs = [t for t in tensors_in(call.args, 2) if t.is_floating_point()]
    operation.handles["fed_nonfinite"] = not all(map(finite, inputs))
    made = [t for t in tensors_in(call.result, 2) if t.is_floating_point()] or [result]
    result = next((t for t in made if not finite(t)), result)
    if finite(result):
        return
    fed, nan = operation.handles["fed_nonfinite"], bool(torch.isnan(result).any())
    masks = operation.kind in operations.MASKS and not nan
    clean = not any(bool(torch.isnan(t).any()) for t in inputs)
    empty = operation.kind == "logsumexp" and clean  # of nothing but -inf
    operation.handles["made_nonfinite"] = (not fed and not masks) or empty
    operation.handles["made_nan"] = nan and clean
    operation.facts["nonfinite_kind"] = "NaN" if nan else "infinity"
    operation.stats["forward_nonfinite"] = float((~torch.isfinite(result)).double().mean())


def put_samples_first(result: Tensor, caller: nn.Module) -> Tensor:
    """What torch's attention works on, (T, B, D) whatever it is given, as (B, T, D)."""
    return result.transpose(0, 1) if isinstance(caller, nn.MultiheadAttention) else result


def read_aside(call: OperationCall, in_loss: bool) -> list[AsideFacts]:
    """What an operation off the graph made of finite numbers, if that is a NaN or an infinity; no mask."""
    made = call.result
    if not isinstance(made, Tensor) or not made.is_floating_point() or call.kind in operations.MASKS:
        return []
    inputs = [t for t in tensors_in(call.args, 2) if t.is_floating_point()]
    if finite(made) or not inputs or not all(map(finite, inputs)):
        return []
    kind = "NaN" if bool(torch.isnan(made).any()) else "infinity"
    kept = made.detach()[torch.isfinite(made)]
    if kind == "infinity" and (kept == kept[:1]).all():  # a mask: one number, and -inf
        return []
    return [{"kind": call.kind, "makes": kind, "line": find_line(), "in_loss": in_loss}]


def read_weight(
    operation: Operation,
    call: OperationCall,
    named: Callable[[Tensor], str | None],
    stats: Callable[[Tensor, int], Statistics],
) -> None:
    """The weights' part of a layer; a matrix product is one only if the factor is a parameter."""
    kind, facts = operation.kind, operation.facts
    weight = call.arguments.get(operations.WEIGHT.get(kind, "weight"))
    product = kind in operations.MULTIPLICATIONS
    if (
        not isinstance(weight, Tensor)
        or weight.ndim < 2
        or (product and not isinstance(weight, nn.Parameter))
    ):
        if product:
            operation.family = "layer" if operation.parameters else "other"
        return
    fan_in, fan_out, outputs = _fans(call, weight)
    facts["fan_out"], facts["fan_in"] = fan_out, fan_in
    facts["weight"] = named(weight) or _parametrized(operation.caller)
    facts["frozen"] = not weight.requires_grad
    operation.handles["weight_tensor"] = weight.detach()
    operation.stats.update(stats(weight, outputs))


def _fans(call: OperationCall, weight: Tensor) -> tuple[int, int, int]:
    """Inputs a unit sums over, outputs an input reaches (of one expert), and all outputs."""
    kind, shape = call.kind, weight.shape
    if kind in operations.TRANSPOSED:
        outputs = operations.count_outputs(kind, shape, call["groups"])
        return shape[0], outputs, outputs
    fan_in = shape[-2] if kind in operations.COLUMNS else math.prod(shape[1:])
    outputs = operations.count_outputs(kind, shape)
    return int(fan_in), int(shape[-1] if kind in operations.GROUPED else outputs), int(outputs)


def _parametrized(caller: ModuleCall) -> str | None:
    """The name of a weight that its module computes at each call (`torch.nn.utils.parametrize`)."""
    return f"{caller.path}.weight".lstrip(".") if is_parametrized(caller.module) else None


def is_parametrized(module: nn.Module, name: str = "weight") -> bool:
    """Whether a module computes a tensor of this name from others."""
    return name in module._modules.get("parametrizations", ())  # type: ignore[operator]


def is_attention(result: Tensor) -> bool:
    """Whether a softmax has the shape of one over keys."""
    return result.ndim >= 3 and result.shape[-1] >= 2


def _reads_memory(result: Tensor) -> bool:
    """Whether a softmax may be one over the entries of a memory that all samples share."""
    return result.ndim == 2 and len(result) > 1 and result.shape[1] >= MEMORY


def read_attention(operation: Operation, call: OperationCall, result: Tensor) -> None:
    """How sharp an attention is, fused or from its softmax, and where its queries and values come from."""
    if operation.kind == "softmax":
        if not is_attention(result) and not _reads_memory(result):
            operation.family = "other"
            return
        facts, stats = read_softmax(result)
        operation.handles["scores"] = call["input"].grad_fn
    else:
        facts, stats = read_fused(call.arguments)
        if found := find_ends(call.arguments):
            operation.handles["ends"] = found
    operation.facts.update(facts)
    operation.stats.update(stats)


def read_loss(operation: Operation, call: OperationCall) -> None:
    """What the loss function reads, and how wrong it is."""
    operation.family = "other"
    x, y = call["input"], call["target"]
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.numel():
        operation.handles["reads"] = x.grad_fn
        operation.handles["compared"] = x.detach(), y.detach()
        weighed = call.arguments.get("weight") is not None
        operation.handles["unreduced"] = weighed or call.arguments.get("reduction") == 0
        kind = operations.LOSSES[operation.kind]
        if kind in CROSS_ENTROPIES:
            operation.handles["weighing"] = Weighing(
                call.arguments.get("weight"),
                call.arguments.get("pos_weight"),
                float(call.arguments.get("label_smoothing", 0.0)),
                int(call.arguments.get("ignore_index", -100)),
                int(call.arguments.get("reduction", 1)),
            )
        operation.handles["reading"] = reading(kind, x.detach(), y.detach())
