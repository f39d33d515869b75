"""Every parameter: whether it ran, whether the loss reaches it, its optimizer, and its gradient."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unvanish.core.facts import ParameterFacts
from unvanish.core.trace import Site
from unvanish.probes.apart import Apart
from unvanish.probes.backward import GradientFlow
from unvanish.probes.forward import Forward, Modules
from unvanish.probes.graph import Graph
from unvanish.probes.layers import list_parameters
from unvanish.probes.measures import dense, see, share
from unvanish.probes.measures import norms as norms_of
from unvanish.probes.passes import BackwardPass, Measured, Specimen
from unvanish.probes.planned import Plan, read_decay, read_plans, read_step

Weight = tuple[Tensor, Tensor | None, Tensor | None]  # itself, its bias, its gradient
STRUCTURAL = math.log(1e-4)  # of the gradient that arrives: below it is rounding
PULLED = 1e-4  # of the gradient: copies that are pulled alike differ by less
SMALL = 1 << 14  # elements of a weight that is compared together with others of its shape


@torch.no_grad()
def read(
    specimen: Specimen, watched: Forward, backward: BackwardPass, apart: Mapping[str, Apart]
) -> list[Measured]:
    """The sites of the parameters with their statistics, in the order of `named_parameters`."""
    attempt, flow = specimen.omissions.attempt, backward.flow
    structural: frozenset[str] = attempt(
        "biases that cancel", "", lambda: _cancelled_biases(watched, backward.graph, flow), frozenset
    )
    plans: Mapping[int, Plan] = attempt(
        "the planned steps", "", lambda: read_plans(specimen.optimizer), dict[int, Plan]
    )
    every = list_parameters(specimen.model, specimen.modules)
    times = Counter([id(p) for _, p, _, _ in every])
    held = _held_by(specimen.optimizer)
    uses = _Uses(watched, specimen.manner.watched, held, times, structural, backward.rounding, apart)
    asleep = watched.parameters.find_sleepers()
    rows: list[tuple[str, str, ParameterFacts, dict[str, float]]] = []
    seen: set[int] = set()
    weights: dict[str, Weight] = {}
    places: dict[str, tuple[ParameterFacts, dict[str, float]]] = {}
    for name, p, owner, module in every:
        if id(p) in seen:
            continue
        seen.add(id(p))
        gradient = None if flow is None else flow.gradients.get(name)
        facts = uses.describe(name, p, owner, module)
        facts["reachable"] = p.requires_grad and _is_reached(name, p, backward.graph, flow)
        facts["asleep"] = name in asleep and not facts["reachable"]
        log = math.nan if flow is None else flow.logs.get(name, math.nan)
        stats: dict[str, float] = {}
        try:
            if specimen.manner.signs:
                facts["zero_third"] = _zero_third(p, gradient)
                facts |= read_step(p, gradient, log, plans.get(id(p))) | read_decay(p, log, plans.get(id(p)))
                stats = _stats(p, gradient, log, specimen.norms.get(name))
                if p.ndim > 1 and not isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                    weights[name], places[name] = (p, _bias(module, name), gradient), (facts, stats)
                    facts["twin_thirds"] = _are_thirds_equal(p, module)
        except Exception as error:
            specimen.omissions.note("the parameter", name, error)
        rows.append((name, type(module).__name__, facts, stats))
    twins: dict[str, tuple[float, bool]] = attempt("equal units", "", lambda: _twins(weights), dict)
    logs = {} if flow is None else flow.logs
    copied: dict[str, str] = attempt("weights that are copies", "", lambda: _copies(weights, logs), dict)
    for name, first in copied.items():
        places[name][0]["copied"] = first
    cancels = bool(backward.rounding) or any(logs.get(n) == -math.inf for n in weights)
    for name, (equal, stay) in twins.items():
        facts, stats = places[name]
        stats["weight_twins"], facts["twins_stay"] = equal, stay
        facts["uniform"] = cancels and _is_uniform(weights[name][0])
    return [(Site.parameter(name, kind, facts), stats) for name, kind, facts, stats in rows]


@dataclass(frozen=True)
class _Uses:
    """Who used which parameter; `seen`: whether the forward was watched, so that no use means none."""

    watched: Forward
    seen: bool
    held: set[int] | None
    times: Mapping[int, int]
    structural: frozenset[str]
    rounding: frozenset[str]
    apart: Mapping[str, Apart]

    def describe(self, name: str, p: Tensor, owner: str, module: nn.Module) -> ParameterFacts:
        """The facts of a parameter without its numbers."""
        facts: ParameterFacts = {
            "shape": tuple(p.shape),
            "numel": p.numel(),
            "trainable": p.requires_grad,
            "module": owner,
            "optimised": None if self.held is None else id(p) in self.held,
            "tied": self.times[id(p)] > 1,
            "rounding": name in self.rounding,
            "zero_by_structure": name in self.structural,
            "zero_third": False,
            "apart": self.apart.get(name, ""),
        }
        if self.seen:
            used = self.watched.used
            facts["executed"] = owner in self._ran or name in used
            facts["used"] = name in used or isinstance(module, torch.jit.ScriptModule)
            facts["used_at"] = used.get(name, -1)
        return facts

    @cached_property
    def _ran(self) -> set[str]:
        return {call.path for call in self.watched.module_calls} | {""}


def name_parameters(modules: Modules) -> dict[str, Tensor]:
    """The parameters of some modules, each once and by its first name, as `named_parameters` has them."""
    found: dict[int, tuple[str, Tensor]] = {}
    for path, module in modules:
        for name, p in module._parameters.items():
            if p is not None and id(p) not in found:
                found[id(p)] = f"{path}.{name}" if path else name, p
    return dict(found.values())


def _held_by(optimizer: Any) -> set[int] | None:
    """The ids of the parameters that an optimizer holds; None without one."""
    if optimizer is None:
        return None
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def count_stale(specimen: Specimen) -> int:
    """How many tensors the optimizer holds that are no parameters, shaped like trainable ones it lacks."""
    held = {id(p): p for group in specimen.optimizer.param_groups for p in group["params"]}
    lacking = [p for p in specimen.parameters.values() if p.requires_grad and id(p) not in held]
    own = {id(p) for p in specimen.parameters.values()}
    shapes = Counter([p.shape for p in lacking])
    others = Counter([p.shape for i, p in held.items() if i not in own])
    return (shapes & others).total()


def _cancelled_biases(watched: Forward, graph: Graph | None, flow: GradientFlow | None) -> frozenset[str]:
    """Biases whose gradient cancels for all data: before a normalisation, or of an attention's keys.

    Such a gradient is rounding noise, under 1e-4 of the gradient that arrives at its layer.
    """
    if graph is None or flow is None:
        return frozenset()
    found = set()
    for o in watched.operations:
        arrives = flow.log.get(graph.index.get(o.nodes[0], -1), math.nan)
        for name in o.parameters[1:] if o.family == "layer" else ():
            if flow.logs.get(name, math.nan) - arrives < STRUCTURAL:
                found.add(name)
    return frozenset(found)


def _zero_third(p: Tensor, gradient: Tensor | None) -> bool:
    """Whether the gradient of a bias's middle third cancels: the keys' part of a packed (q, k, v) bias."""
    if gradient is None or gradient.is_sparse or p.ndim != 1 or not p.numel() or p.numel() % 3:
        return False
    q, k, v = gradient.detach().double().chunk(3)
    return bool(k.norm() < 1e-4 * v.norm() and k.norm() < 1e-4 * q.norm())


def _are_thirds_equal(p: Tensor, module: nn.Module) -> bool:
    """Whether a packed projection (3 width, width) holds the same weights three times; gates are none."""
    gates = isinstance(module, (nn.RNNBase, nn.RNNCellBase))
    if gates or p.ndim != 2 or p.shape[0] != 3 * p.shape[1] or p.is_meta or p.shape[1] < 2:
        return False
    width, rows = p.shape[1], p.detach()
    if not torch.equal(rows[0], rows[width]) or torch.equal(rows[0], rows[1]):  # a constant is no projection
        return False
    return torch.equal(rows[:width], rows[width:-width]) and torch.equal(rows[:width], rows[-width:])


def _is_reached(name: str, p: Tensor, graph: Graph | None, flow: GradientFlow | None) -> bool:
    if flow is not None and name in flow.places:
        return flow.places[name] is not None or flow.gradients[name] is not None
    return graph is not None and torch.autograd.graph.get_gradient_edge(p).node in graph.index


def _bias(module: nn.Module, name: str) -> Tensor | None:
    own = name.rpartition(".")[2]
    table: Any = module._parameters  # a scripted module's is no dict
    return dict(table.items()).get(own.replace("weight", "bias")) if "weight" in own else None


def _stats(p: Tensor, gradient: Tensor | None, log: float, norm: float | None) -> dict[str, float]:
    size = max(1, p.numel())
    norm = norms_of([p])[0] if norm is None else norm
    found = {"weight_rms": norm / size**0.5} if p.is_floating_point() or p.is_complex() else {}
    if not math.isfinite(found.get("weight_rms", 0.0)):
        found["weight_nonfinite"] = float((~torch.isfinite(p.detach())).double().mean())
    if gradient is not None:
        gradient = dense(gradient)
    if gradient is not None and gradient.numel():
        found["gradient_log"] = log
        found["gradient_zero"] = 1 - share(gradient)
        found["gradient_nonfinite"] = (
            0.0 if log < math.inf else float((~torch.isfinite(gradient)).double().mean())
        )
    elif gradient is None and log == -math.inf:
        found |= {"gradient_log": log, "gradient_zero": 1.0, "gradient_nonfinite": 0.0}
    return found


def _twins(weights: Mapping[str, Weight]) -> dict[str, tuple[float, bool]]:
    """(share of rows equal to another row, whether their gradients are equal too) of each weight.

    Rows are compared by two random projections first; a weight without equal projections has no twins.
    """
    alike: dict[Any, list[str]] = {}
    for name, (weight, bias, _) in weights.items():
        key = (weight.shape[0], weight.dtype, weight.device, None if bias is None else bias.shape)
        if weight.shape[0] > 1 and weight.numel():
            alike.setdefault(key, []).append(name)
    found = dict.fromkeys(weights, (0.0, False))
    for names in alike.values():
        for name, partner in zip(names, _partners([weights[n] for n in names]), strict=True):
            equal = len(partner) / weights[name][0].shape[0]
            found[name] = equal, equal >= 0.05 and _stay(weights[name], partner)
    return found


def _copies(weights: Mapping[str, Weight], logs: Mapping[str, float]) -> dict[str, str]:
    """The first weight of those that hold the same numbers and get the same gradient, for each of them.

    Weights of one shape whose gradients are of one size are compared; `logs`: ln of that size.
    """
    groups: dict[Any, list[list[str]]] = {}  # each of copies; a weight is compared with the first ones alone
    for name, (weight, _, gradient) in weights.items():
        log = logs.get(name, math.nan)
        if gradient is None or gradient.is_sparse or not (weight.requires_grad and math.isfinite(log)):
            continue
        at = round(log / (2 * PULLED))
        key = weight.shape, weight.dtype, weight.device
        near = [group for place in (at - 1, at, at + 1) for group in groups.get((key, place), ())]
        known = next((group for group in near if _are_copies(weights[group[0]], weights[name])), None)
        if known is None:
            groups.setdefault((key, at), []).append([name])
        else:
            known.append(name)
    copies = [group for alike in groups.values() for group in alike if len(group) > 1]
    return {name: group[0] for group in copies for name in group}


def _are_copies(one: Weight, other: Weight) -> bool:
    """Whether two weights are equal and not zero, and their gradients equal but for rounding."""
    if one[2] is None or other[2] is None or not torch.equal(one[0], other[0]) or not bool(one[0].any()):
        return False
    first, second = dense(one[2]), dense(other[2])
    apart, whole = norms_of([first - second, first])
    return apart <= PULLED * whole


def _is_uniform(weight: Tensor) -> bool:
    """Whether all rows of a weight are equal, and not zero."""
    first = weight.detach()[:1]
    return (
        len(weight) > 1 and first.numel() > 1 and bool(first.any()) and bool((weight.detach() == first).all())
    )


def _partners(weights: Sequence[Weight]) -> list[NDArray[np.intp]]:
    """The rows equal to another row, of each of some weights with as many rows."""
    rows = [weight if weight.ndim == 2 else weight.flatten(1) for weight, _, _ in weights]
    if len({r.shape for r in rows}) == 1 and rows[0].numel() <= SMALL:
        rows = [torch.cat(rows)]
    tags = _numbers(torch.cat([torch.mv(r, _probe(r.shape[1]).to(r)[:, 0]) for r in rows]))
    tags = tags.reshape(len(weights), -1)
    biases = [bias for _, bias, _ in weights if bias is not None]
    if biases and biases[0].shape == tags.shape[1:]:
        tags = tags + 0.7310585 * _numbers(torch.cat(biases)).reshape(tags.shape)
    limit = 1e-6 * np.abs(tags).max(1)[:, None]
    if not (np.diff(np.sort(tags, axis=1), axis=1) <= limit).any():
        return [np.empty(0, dtype=np.intp)] * len(weights)
    order = np.argsort(tags, axis=1, kind="stable")
    near = np.diff(np.take_along_axis(tags, order, 1), axis=1) <= limit
    flags = np.zeros(tags.shape, dtype=np.bool_)
    flags[:, 1:] |= near
    flags[:, :-1] |= near
    flags[~(limit[:, 0] > 0)] = False
    return [own[flag] for own, flag in zip(order, flags, strict=True)]


def _stay(weight: Weight, partner: NDArray[np.intp]) -> bool:
    """Whether equal rows have equal gradients, so that they stay twins."""
    rows, gradient = weight[0].detach().flatten(1), weight[2]
    if gradient is None or gradient.is_sparse or len(partner) > 2048:
        return False
    chosen = torch.from_numpy(partner).to(rows.device)
    probe = _probe(rows.shape[1]).to(rows).double()
    kept, slopes = rows[chosen], gradient.flatten(1)[chosen]
    keys = torch.cat([kept.double() @ probe, slopes.double() @ probe], 1)
    scale = keys.abs().amax(0)
    if not bool(scale[1] > 0):
        return False
    distance = ((keys[:, None] - keys[None]).abs() / scale.clamp_min(1e-300)).amax(-1)
    distance.fill_diagonal_(1.0)
    return float((distance.amin(1) < 1e-4).double().mean()) > 0.9


@lru_cache(maxsize=8)
def _probe(columns: int) -> Tensor:
    """Normal numbers (columns, 1), the same for every weight with as many columns."""
    return torch.randn(columns, 1, generator=torch.Generator().manual_seed(0), device="cpu")


def _numbers(x: Tensor) -> NDArray[np.float64]:
    return see(x.to("cpu", torch.float64))
