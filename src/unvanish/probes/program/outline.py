"""A model's outline: one forward on tensors without data, what reads what, and how large weights
are.

Notable: a copy of the model on the meta device runs under the same eyes as a measured forward, so the rows of
a predicted trace are those of a measured one. Weights stay where they are; of each, its squares are summed. A
model on the meta device itself is taken at PyTorch's own initialisation.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probes import calls
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.forward import Forward, Operation
from unvanish.probes.graph import Graph, walk
from unvanish.probes.intact import in_the_open, intact, unwrap
from unvanish.probes.measures import weight_stats
from unvanish.probes.program.tape import Taped
from unvanish.theory.program.steps import Program


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

    `hollow`: run a copy on tensors without data; else the model itself on two samples, which is left as it
    was. CheckError for a batch that is none, ModelCrash where the model raises or needs real numbers to run.
    """
    bare = unwrap(model)
    if not isinstance(bare, nn.Module):
        raise CheckError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module; pass the module itself"
        )
    size = calls.prepare(_emptied(batch), None).batch_size or 1
    still = nullcontext() if hollow else intact(bare)
    with warnings.catch_warnings(), in_the_open(), torch.enable_grad(), still:
        warnings.simplefilter("ignore")
        ran, given = (hollowed(bare), _emptied(batch)) if hollow else (bare, _some(batch, size))
        kind = "tensors without data" if hollow else "two samples"
        try:
            call, watched, output = _watched(bare, ran, given, kind)
        except ModelCrash as crash:
            if "requires_grad" not in str(crash.__cause__):
                raise
            call, watched, output = _watched(bare, ran, given, kind, gradients=False)
        watched.start_loss()
        value = calls.random_cotangent(output)
        if value.grad_fn is None:
            raise CheckError("nothing the model returns depends on a parameter that requires a gradient")
        program = replace(watched.program(output), batch=size)
    return Outline(call, watched, walk(value.grad_fn), program, watched.numbers, watched.named_inputs)


def _watched(
    bare: nn.Module, ran: nn.Module, given: Any, kind: str, gradients: bool = True
) -> tuple[calls.Call, Taped, Any]:
    call = calls.prepare(given, None, gradients=gradients)
    watched = Unmeasured(bare, ran, call)
    with watched.watching():
        try:
            return call, watched, ran(*call.args, **call.kwargs)
        except Exception as error:
            where = f" in {watched.turn.path}" if watched.turn.path else ""
            text = f"the model raised {type(error).__name__}{where} on {kind}: {error}"
            raise ModelCrash(text, watched.turn.path) from error


def hollowed(model: nn.Module) -> nn.Module:
    """A copy on the meta device, whose parameters cost no memory."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        held = {**module._parameters, **module._buffers, **vars(module)}
        for value in held.values():
            if isinstance(value, Tensor) and id(value) not in memo:
                empty = torch.empty_like(value, device="meta", requires_grad=False)
                kept = nn.Parameter(empty, value.requires_grad) if isinstance(value, nn.Parameter) else empty
                memo[id(value)] = kept
    return copy.deepcopy(model, memo)


def _emptied(batch: Any) -> Any:
    """The batch's tensors without their numbers."""
    if isinstance(batch, Tensor):
        return torch.empty_like(batch, device="meta", requires_grad=False)
    if isinstance(batch, Mapping):
        return {k: _emptied(v) for k, v in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(_emptied(v) for v in batch)
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
    """A forward that measures nothing and writes down what was done."""

    def _weight_stats(self, weight: Tensor, outputs: int) -> dict[str, float]:
        known = self._known(weight)
        return weight_stats(known, outputs) if known is not None and not known.is_meta else {}

    def _read_attention(self, operation: Operation, args: Any, kwargs: Any, result: Tensor) -> None:
        if operation.kind == "softmax":
            if result.ndim < 3 or result.shape[-1] < 2:
                operation.family = "other"
            operation.handles["scores"] = (args[0] if args else kwargs["input"]).grad_fn
            return
        q, _, v = args[:3] if len(args) > 2 else (kwargs["query"], kwargs["key"], kwargs["value"])
        operation.handles["ends"] = ((q.grad_fn, q.output_nr), (v.grad_fn, v.output_nr))

    def _read_sizes(self, operation: Operation, result: Tensor) -> None:
        """There are no numbers to read."""
