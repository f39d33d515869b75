"""What is watched: the model, its optimizers, its loss, its loss scale."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.clinic.watch.ranks import is_replicated
from unvanish.probes.errors import CheckError
from unvanish.probes.intact import unwrap
from unvanish.probes.live.compiled import has_compiled_parts
from unvanish.probes.live.shards import count_processes
from unvanish.probes.live.updates import Parameters


@dataclass
class Watched:
    """A training as its user set it up; `inner` is the model without its wrappers."""

    model: nn.Module
    references: tuple[weakref.ref[Any], ...]  # to the optimizers; more may turn up
    loss: Any
    scaler: Any
    name: str
    inner: nn.Module
    parameters: Parameters  # those that are trained
    ranks: int  # processes that train together
    summed: bool = False  # whether the losses of an accumulated step are known to add up to the step's
    compiled: bool | None = None  # whether to look into compiled graphs; None: where nothing else changes

    @classmethod
    def of(
        cls,
        model: nn.Module,
        optimizers: Sequence[Any],
        loss: Any,
        scaler: Any,
        name: str | None,
        compiled: bool | None = None,
    ) -> Watched:
        """Read what a watch needs to know; CheckError if no parameter is trained."""
        inner = unwrap(model)
        parameters = Parameters(inner, optimizers)
        if not parameters.parameters:  # the optimizers hold others: that is for OPT006 to say
            parameters = Parameters(inner, [])
        if not parameters.parameters:
            raise CheckError("there is nothing to watch: no parameter of the model requires a gradient")
        kept = tuple(map(weakref.ref, optimizers))
        called, ranks = name or type(inner).__name__, count_processes()
        return cls(model, kept, loss, scaler, called, inner, parameters, ranks, compiled=compiled)

    def adopt(self, optimizer: Any) -> None:
        """An optimizer of the model has turned up: the parameters that it holds are watched."""
        alive = (ref for ref in self.references if ref() is not None)
        self.references = (*alive, weakref.ref(optimizer))
        self.parameters = Parameters(self.inner, self.optimizers)

    @property
    def optimizers(self) -> tuple[Any, ...]:
        """The optimizers that are still there; a watch keeps none of them alive."""
        return tuple(o for ref in self.references if (o := ref()) is not None)

    @property
    def alone(self) -> bool:
        """Whether this process holds the whole model and its whole gradient."""
        return not (is_replicated(self.model) or self.parameters.sharded)

    @property
    def device(self) -> torch.device:
        """Where the first parameter is."""
        return self.parameters.parameters[0].device

    def is_compiled(self) -> bool:
        """Whether the model, or a part of it, is compiled, or will be as we were told."""
        return bool(self.compiled) or has_compiled_parts(self.model)

    def rates(self) -> tuple[float, float]:
        """The largest and the smallest learning rate of all groups; NaN if there is none, or on a device."""
        high, low = -math.inf, math.inf
        for reference in self.references:
            optimizer = reference()
            for group in () if optimizer is None else optimizer.param_groups:
                rate = group.get("lr", math.nan)
                if isinstance(rate, Tensor):
                    rate = float(rate) if rate.device.type == "cpu" else math.nan
                if rate is None:  # the optimizer finds its own
                    rate = math.nan
                if rate > high:
                    high = rate
                if rate < low:
                    low = rate
        return (float(high), float(low)) if high >= low else (math.nan, math.nan)

    def loss_scale(self) -> float:
        """What the loss is multiplied by at present."""
        return float(self.scaler.get_scale()) if self.scaler is not None else 1.0
