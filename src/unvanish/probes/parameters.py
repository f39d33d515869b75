"""Every parameter: whether it ran, whether the loss reaches it, who optimises it, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unvanish.probes.backward import Flow
from unvanish.probes.forward import Forward
from unvanish.probes.graph import Graph
from unvanish.probes.measures import norms as norms_of
from unvanish.probes.measures import share
from unvanish.types import Site

STRUCTURAL = math.log(1e-4)


@torch.no_grad()
def read(
    model: nn.Module,
    watched: Forward,
    graph: Graph | None,
    flow: Flow | None,
    optimizer: Any,
    structural: frozenset[str] = frozenset(),
    norms: Mapping[str, float] | None = None,
) -> list[tuple[Site, dict[str, float]]]:
    """A site and its statistics for each parameter, in the order of `named_parameters`."""
    ran = {turn.path for turn in watched.turns} | {""}
    held = None if optimizer is None else {id(p) for group in optimizer.param_groups for p in group["params"]}
    owners: dict[int, list[str]] = {}
    every = list(model.named_parameters(remove_duplicate=False))
    for name, p in every:
        owners.setdefault(id(p), []).append(name)
    found, modules = [], dict(model.named_modules(remove_duplicate=False))
    seen: set[int] = set()
    for name, p in every:
        if id(p) in seen:
            continue
        seen.add(id(p))
        owner = name.rpartition(".")[0]
        module = modules[owner]
        gradient = None if flow is None else flow.gradients.get(name)
        facts: dict[str, Any] = {
            "shape": tuple(p.shape),
            "numel": p.numel(),
            "trainable": p.requires_grad,
            "module": owner,
            "executed": owner in ran or name in watched.used,
            "used": name in watched.used or isinstance(module, torch.jit.ScriptModule),
            "reachable": p.requires_grad and _reached(name, p, graph, flow),
            "optimised": None if held is None else id(p) in held,
            "tied": len(owners[id(p)]) > 1,
            "zero_by_structure": name in structural,
            "zero_third": _zero_third(p, gradient),
            "used_at": watched.used.get(name, -1),
        }
        known = None if norms is None else norms.get(name)
        stats = _stats(p, gradient, math.nan if flow is None else flow.logs.get(name, math.nan), known)
        if p.ndim > 1 and not isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            stats["weight_twins"], facts["twins_stay"] = _twins(p, _bias(module, name), gradient)
        found.append((Site(name, type(module).__name__, role="parameter", facts=facts), stats))
    return found


def zero_by_structure(watched: Forward, graph: Graph | None, flow: Flow | None) -> frozenset[str]:
    """Biases whose gradient cancels, whatever the data: before a normalisation, or of an attention's keys.

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
    if gradient is None or gradient.is_sparse or p.ndim != 1 or p.numel() % 3:
        return False
    q, k, v = gradient.detach().double().chunk(3)
    return bool(k.norm() < 1e-4 * v.norm() and k.norm() < 1e-4 * q.norm())


def _reached(name: str, p: Tensor, graph: Graph | None, flow: Flow | None) -> bool:
    if flow is not None and name in flow.places:
        return flow.places[name] is not None
    return graph is not None and torch.autograd.graph.get_gradient_edge(p).node in graph.index


def _bias(module: nn.Module, name: str) -> Tensor | None:
    own = name.rpartition(".")[2]
    return module._parameters.get(own.replace("weight", "bias")) if "weight" in own else None


def _stats(p: Tensor, gradient: Tensor | None, log: float, norm: float | None) -> dict[str, float]:
    size = max(1, p.numel())
    norm = norms_of([p])[0] if norm is None else norm
    found = {"weight_rms": norm / size**0.5} if p.is_floating_point() else {}
    if not math.isfinite(found.get("weight_rms", 0.0)):
        found["weight_nonfinite"] = float((~torch.isfinite(p.detach())).double().mean())
    if gradient is not None and gradient.is_sparse:
        gradient = gradient.coalesce().values()
    if gradient is not None and gradient.numel():
        found["gradient_log"] = log
        found["gradient_zero"] = 1 - share(gradient)
        found["gradient_nonfinite"] = (
            0.0 if log < math.inf else float((~torch.isfinite(gradient)).double().mean())
        )
    return found


def _twins(weight: Tensor, bias: Tensor | None, gradient: Tensor | None) -> tuple[float, bool]:
    """(share of rows equal to another row, whether their gradients are equal too).

    Rows are compared by two random projections first; a weight without equal projections has no twins.
    """
    rows = weight.detach().flatten(1)
    count = len(rows)
    if count < 2 or not rows.numel():
        return 0.0, False
    probe = _probe(rows.shape[1]).to(rows)
    tag = _numbers(torch.mv(rows, probe[:, 0]))
    if bias is not None and bias.shape == (count,):
        tag = tag + 0.7310585 * _numbers(bias.detach())
    size = float(np.abs(tag).max())
    if not size > 0:
        return 0.0, False
    order = np.argsort(tag, kind="stable")
    partner = _close(tag[order], 1e-6 * size)
    share = float(partner.mean())
    if share < 0.05 or gradient is None or gradient.is_sparse:
        return share, False
    chosen = torch.from_numpy(order[partner]).to(rows.device)
    kept, slopes = rows[chosen], gradient.flatten(1)[chosen]
    keys = torch.cat([kept.double() @ probe.double(), slopes.double() @ probe.double()], 1)
    scale = keys.abs().amax(0)
    if not bool(scale[1] > 0):
        return share, False
    distance = (
        ((keys[:, None] - keys[None]).abs() / scale.clamp_min(1e-300)).amax(-1) if len(keys) <= 2048 else None
    )
    if distance is None:
        return share, False
    distance.fill_diagonal_(1.0)
    return share, float((distance.amin(1) < 1e-4).double().mean()) > 0.9


@lru_cache(maxsize=8)
def _probe(columns: int) -> Tensor:
    """The same normal numbers for every weight of so many columns, (columns, 1)."""
    return torch.randn(columns, 1, generator=torch.Generator().manual_seed(0), device="cpu")


def _numbers(x: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = x.to("cpu", torch.float64).numpy()
    return found


def _close(ordered: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Which of the sorted values have a neighbour within the tolerance."""
    near = np.diff(ordered) <= tolerance
    flags = np.zeros(len(ordered), dtype=np.bool_)
    flags[1:] |= near
    flags[:-1] |= near
    return flags
