"""Gradients, weights and steps of all parameters at once: what a watched training costs at every step.

Notable:
- Norms are fused reductions in the tensors' own precision; they are taken again in float64 only if that
  over- or underflows.
- What a step changed is read from at most `ELEMENTS` evenly spaced elements of each parameter, before and
  after: the model is never copied.
- Sharded parameters (DTensors) are read by their local shards (`shards`), which are joined later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.facts import ParameterFacts
from unvanish.core.trace import Site
from unvanish.probes.layers import name_modules, name_parameters
from unvanish.probes.live.gauge import Gauge, exact_norms
from unvanish.probes.live.shards import (
    count_copies,
    count_processes,
    count_shards,
    digest_layout,
    is_partial,
    is_shard,
    local,
)
from unvanish.probes.planned import read_number

ELEMENTS = 256  # of each parameter, for what a step changed
PICKED = 8  # parameters whose gradients are compared with themselves
MOVED = ("gradient_log", "gradient_zero", "norm_log", "update_log")


class Parameters:
    """The trainable parameters of a model that the given optimizers hold, one site for each module."""

    def __init__(self, model: nn.Module, optimizers: Sequence[Any]) -> None:
        held = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
        epsilons = {
            id(p): read_number(group, "eps")
            for o in optimizers
            for group in o.param_groups
            for p in group["params"]
        }
        groups: dict[str, list[tuple[str, Tensor]]] = {}
        for name, p in name_parameters(model).items():
            if p.requires_grad and (not optimizers or id(p) in held):
                groups.setdefault(name.rpartition(".")[0], []).append((name, p))
        self.parameters: list[Tensor] = [p for group in groups.values() for _, p in group]
        self.names = [name for group in groups.values() for name, _ in group]
        self.owner = [i for i, group in enumerate(groups.values()) for _ in group]
        kinds = {name: type(m).__name__ for name, m in name_modules(model)}
        self.sites = tuple(
            Site.parameter(path, kinds.get(path, ""), _facts(group, order, epsilons))
            for order, (path, group) in enumerate(groups.items())
        )
        self.sharded = any(map(is_shard, self.parameters))
        self.shards, self.layout = count_shards(self.parameters), digest_layout(self.names, self.parameters)
        ranks = count_processes()
        self._copies = [count_copies(p, ranks) if self.sharded else 1.0 for p in self.parameters]
        self._before: list[Tensor] | None = None
        self._index: Tensor | None = None

    def gradients(self) -> list[tuple[int, Tensor]]:
        """(place, gradient) of each parameter that has one: sparse ones by their values, shards locally."""
        return [
            (i, _values(p.grad))
            for i, p in enumerate(self.parameters)
            if p.grad is not None and not (self.sharded and is_partial(p.grad))
        ]

    def find_unreadable(self) -> list[str]:
        """Names of the parameters whose gradients are partial sums, which only all ranks together know."""
        if not self.sharded:
            return []
        return [n for n, p in zip(self.names, self.parameters, strict=True) if is_partial(p.grad)]

    def gauge(self, only: Iterable[Tensor] | None = None) -> Gauge:
        """What reads the norm of all gradients, or of some parameters', at every step."""
        chosen = None if only is None else {id(p) for p in only}
        places = [i for i, p in enumerate(self.parameters) if chosen is None or id(p) in chosen]
        kept = [self.parameters[i] for i in places]
        whole = self.sharded or any(p.device.type != "cpu" for p in kept)
        weights = tuple(self._copies[i] ** -0.5 for i in places) if self.sharded else ()
        return Gauge(_values, kept, whole, weights)

    @torch.no_grad()
    def squares(self) -> Tensor:
        """(sites, 4): squared gradient norm, zeros and elements among those looked at, squared weights."""
        device = self.parameters[0].device
        found = torch.zeros(len(self.sites), 4, dtype=torch.float64, device=device)
        grads = self.gradients()
        if grads:
            norms = exact_norms([g for _, g in grads]).to(device)
            at = torch.tensor([self.owner[i] for i, _ in grads], device=device)
            shares = self._replicas([i for i, _ in grads], device)
            found[:, 0].index_add_(0, at, norms.square() / shares)
            parts = [_some(g).to(device) for _, g in grads]
            where = torch.repeat_interleave(at, torch.tensor([len(p) for p in parts], device=device))
            flat = torch.cat([p.float() for p in parts])
            found[:, 1].index_add_(0, where, (flat == 0).double())
            found[:, 2].index_add_(0, where, torch.ones_like(flat, dtype=torch.float64))
        weights = exact_norms([local(p.detach()) for p in self.parameters]).to(device)
        owner = torch.tensor(self.owner, device=device)
        shares = self._replicas(range(len(self.parameters)), device)
        found[:, 3].index_add_(0, owner, weights.square() / shares)
        return found

    def _replicas(self, places: Iterable[int], device: Any) -> Tensor:
        """How many ranks hold the same numbers, so that sums over ranks count them once."""
        return torch.tensor([self._copies[i] for i in places], dtype=torch.float64, device=device)

    @torch.no_grad()
    def pick_gradients(self) -> list[Tensor]:
        """Copies of a few elements of some gradients, in float64."""
        grads = self.gradients()[:: max(1, len(self.parameters) // PICKED)]
        return [_some(g).double() for _, g in grads]

    @torch.no_grad()
    def hold(self) -> None:
        """Remember a few elements of every parameter, to see later what the step changed."""
        self._before = [_some(local(p.detach())).clone() for p in self.parameters]

    @torch.no_grad()
    def changes(self) -> Tensor | None:
        """(sites, 2): squares of what changed since `hold`, and of what was there; None if unknown."""
        if self._before is None:
            return None
        before, self._before = self._before, None
        now = [_some(local(p.detach())) for p in self.parameters]
        device = self.parameters[0].device
        if [len(b) for b in before] != [len(n) for n in now]:
            return None  # parameters have another size than before the step
        old = torch.cat([b.to(device).float() for b in before])
        new = torch.cat([n.to(device).float() for n in now])
        if self._index is None or len(self._index) != len(old):
            counts = torch.tensor([len(b) for b in before])
            self._index = torch.repeat_interleave(torch.tensor(self.owner), counts).to(device)
        found = torch.zeros(len(self.sites), 2, dtype=torch.float64, device=device)
        found[:, 0].index_add_(0, self._index, (new - old).double().square())
        found[:, 1].index_add_(0, self._index, old.double().square())
        return found

    def find_broken_gradients(self) -> list[str]:
        """Names of the parameters whose gradient is not finite, in the model's order."""
        return [self.names[i] for i, g in self.gradients() if not bool(torch.isfinite(g).all())]

    def find_broken_weights(self) -> list[str]:
        """Names of the parameters that hold a NaN or an infinity themselves, in the model's order."""
        pairs = zip(self.names, self.parameters, strict=True)
        return [n for n, p in pairs if not bool(torch.isfinite(local(p.detach())).all())]


def statistics(squares: Tensor, changes: Tensor | None, scale: float = 1.0) -> Tensor:
    """`MOVED` of every site, shape (sites, 4), from (summed) squares; the loss's `scale` is taken out."""
    nothing = squares[:, 2] == 0
    gradient = 0.5 * squares[:, 0].log() - math.log(scale)
    found = torch.full((len(squares), len(MOVED)), math.nan, dtype=torch.float64, device=squares.device)
    found[:, 0] = torch.where(nothing, math.nan, gradient)
    found[:, 1] = squares[:, 1] / squares[:, 2]
    found[:, 2] = 0.5 * squares[:, 3].log()
    if changes is not None:
        found[:, 3] = 0.5 * (changes[:, 0] / changes[:, 1]).log()
    return found


def part_logs(squares: Tensor, changes: Tensor | None) -> Tensor:
    """What joining shards needs of every site: elements looked at, ln of changes, of values; (sites, 3)."""
    found = torch.full((len(squares), 3), math.nan, dtype=torch.float64, device=squares.device)
    found[:, 0] = squares[:, 2]
    if changes is not None:
        found[:, 1:] = 0.5 * changes.log()
    return found


def _facts(group: list[tuple[str, Tensor]], order: int, epsilons: Mapping[int, float]) -> ParameterFacts:
    largest = max((p for _, p in group), key=lambda p: p.numel())
    return {
        "numel": sum(p.numel() for _, p in group),
        "dimensions": largest.ndim,
        "dtype": str(largest.dtype).removeprefix("torch."),
        "trainable": True,
        "order": order,
        "epsilon": epsilons.get(id(largest), 0.0),
    }


def _values(grad: Tensor) -> Tensor:
    if grad.requires_grad:
        grad = grad.detach()
    if grad.is_sparse:
        grad = grad.coalesce()._values()
    return grad if type(grad) is Tensor and not grad.is_complex() else local(grad)


def _some(x: Tensor) -> Tensor:
    """At most about ELEMENTS evenly spaced elements, flat; a view of contiguous tensors."""
    flat = x.reshape(-1) if x.is_contiguous() else x.permute(_order(x)).reshape(-1)
    return flat[:: max(1, flat.shape[0] // ELEMENTS)]


def _order(x: Tensor) -> list[int]:
    """Dimensions by falling stride: a dense tensor in this order is flat in memory."""
    return sorted(range(x.ndim), key=lambda d: -int(x.stride()[d]))
