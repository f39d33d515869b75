"""A model's outline: one forward on tensors without data, what reads what, and how large the weights are.

Notable: a copy of the model on the meta device is watched like a measured forward, so the rows of a predicted
trace are those of a measured one. Weights are not copied: their squares are summed. A model that is itself on
the meta device is taken at PyTorch's own initialisation.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.omissions import describe_error
from unvanish.probes import calls
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph, walk
from unvanish.probes.intact import intact, unwrap
from unvanish.probes.measures import weight_stats
from unvanish.probes.program.tape import Taped
from unvanish.probes.readings import is_attention
from unvanish.theory.program.steps import Program

SMALL = 1 << 20  # bytes of a weight that is copied, lest a hollow copy write to it


@dataclass(frozen=True)
class Outline:
    """The watched forward, its graph, the program, and which tensor each node's output is."""

    call: calls.Call
    watched: Forward
    graph: Graph
    program: Program
    numbers: Mapping[tuple[Any, int], int]
    inputs: Mapping[str, int]


def outline(model: nn.Module, batch: Any, *, hollow: bool = True) -> Outline:
    """The outline of a model on a batch of any device; only the batch's shapes are used.

    `hollow`: run a copy on tensors without data; else the model itself on two samples, and leave it as it
    was. CheckError if the batch is not one, ModelCrash if the model raises or needs real numbers to run.
    """
    bare = unwrap(model)
    if not isinstance(bare, nn.Module):
        raise CheckError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module; pass the module itself"
        )
    size = calls.prepare(_empty(batch), None).batch_size or 1
    with intact(bare, batch, most=SMALL if hollow else math.inf) as kept, kept:
        ran, given = (_hollow_out(bare), _empty(batch)) if hollow else (bare, _some(batch, size))
        kind = "tensors without data" if hollow else "two samples"
        try:
            call, watched, output = _watch(bare, ran, given, kind)
        except ModelCrash as crash:
            if "requires_grad" in str(crash.__cause__):
                call, watched, output = _watch(bare, ran, given, kind, gradients=False)
            elif hollow:
                raise
            else:  # samples that refer to each other, as the nodes of a graph
                call, watched, output = _watch(bare, ran, batch, "the whole batch")
        watched.start_loss()
        value = calls.random_cotangent(output)
        if value.grad_fn is None:
            raise CheckError("nothing the model returns depends on a parameter that requires a gradient")
        program = replace(watched.program(output), batch=size)
    return Outline(call, watched, walk(value.grad_fn), program, watched.numbers, watched.named_inputs)


def _watch(
    bare: nn.Module, ran: nn.Module, given: Any, kind: str, gradients: bool = True
) -> tuple[calls.Call, Taped, Any]:
    call = calls.prepare(given, None, gradients=gradients)
    watched = Unmeasured(bare, ran, call)
    watched.has_read, watched.sizes = True, False  # there are no numbers to measure
    with watched.watching():
        try:
            return call, watched, ran(*call.args, **call.kwargs)
        except Exception as error:
            where = f" in {watched.running.path}" if watched.running.path else ""
            text = f"the model raised {type(error).__name__}{where} on {kind}: {error}"
            raise ModelCrash(text, watched.running.path) from error


def _hollow_out(model: nn.Module) -> nn.Module:
    try:
        return copy_hollow(model)
    except Exception as error:
        text = f"the model cannot be copied without its numbers: {describe_error(error)}"
        raise ModelCrash(text, "") from error


def copy_hollow(model: nn.Module) -> nn.Module:
    """A copy on the meta device, whose parameters cost no memory."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        held = {**module._parameters, **module._buffers, **vars(module)}
        for value in held.values():
            if isinstance(value, Tensor) and id(value) not in memo:
                empty = torch.empty_like(value, device="meta", requires_grad=False)
                kept = nn.Parameter(empty, value.requires_grad) if isinstance(value, nn.Parameter) else empty
                memo[id(value)] = kept
    hollow = copy.deepcopy(model, memo)
    names = [name for name, _ in model.named_parameters()]
    if [name for name, _ in hollow.named_parameters()] != names or not all(
        p.is_meta for p in hollow.parameters()
    ):
        raise CheckError("its copy is built anew, with weights of its own")  # as Keras does it
    return hollow


def _empty(batch: Any) -> Any:
    """The batch's tensors without their numbers."""
    if isinstance(batch, Tensor):
        return torch.empty_like(batch, device="meta", requires_grad=False)
    if isinstance(batch, Mapping):
        return {k: _empty(v) for k, v in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(_empty(v) for v in batch)
    return batch


def _some(batch: Any, size: int) -> Any:
    """Two samples of a batch of this size."""
    if isinstance(batch, Tensor):
        return batch[:2] if batch.ndim and batch.shape[0] == size else batch
    if isinstance(batch, Mapping):
        return {k: _some(v, size) for k, v in batch.items()}
    if type(batch) in (tuple, list):
        return type(batch)(_some(v, size) for v in batch)
    return batch


class Unmeasured(Taped):
    """A forward that measures nothing and writes its program."""

    def _weight_stats(self, weight: Tensor, outputs: int) -> dict[str, float]:
        known = self.weights.known(weight)
        return weight_stats(known, outputs) if known is not None and not known.is_meta else {}

    def _read_attention(self, operation: Operation, call: OperationCall, result: Tensor) -> None:
        if operation.kind == "softmax":
            if not is_attention(result):
                operation.family = "other"
            operation.handles["scores"] = call["input"].grad_fn
            return
        q, v = call["query"], call["value"]
        operation.handles["ends"] = ((q.grad_fn, q.output_nr), (v.grad_fn, v.output_nr))
