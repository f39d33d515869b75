"""What several examined steps together say of the parameters: one that got a gradient in any of them has one.

Notable:
- A step is several backwards, of which one is examined; what the others gave is read from `.grad` at its end.
- Parameters whose optimizer did not take part in the step are left out, as are those that wait for an
  optimizer to turn up and got nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from unvanish.clinic.watch.watched import Watched
from unvanish.core.trace import Site, Trace
from unvanish.probes.layers import name_parameters
from unvanish.probes.measures import log_norm

GIVEN = {"reachable": True, "used": True, "executed": True, "asleep": False}


@dataclass
class SeenGradients:
    """The rows of parameters with a gradient, by name. `adopts`: optimizers are taken as they turn up."""

    watched: Watched
    adopts: bool
    elsewhere: set[int] = field(default_factory=set)  # ids of parameters that other optimizers hold
    rows: dict[str, tuple[Site, Any]] = field(default_factory=dict)

    def complete(self, trace: Trace, stepped: Collection[int]) -> Trace:
        """The trace with what is known from elsewhere; `stepped`: ids of the optimizers that took part."""
        named = name_parameters(self.watched.inner)
        sites, values = list(trace.sites), trace.values.copy()
        column = trace.statistics.index("gradient_log")
        absent = self._find_absent(named, stepped)
        for i in trace.where("parameter"):
            site, p = sites[i], named.get(sites[i].path)
            if not np.isfinite(values[0, i, column]) and (log := find_gradient(p)) is not None:
                site, values[0, i, column] = _with_facts(site, GIVEN), log
            if np.isfinite(values[0, i, column]):
                self.rows[site.path] = site, values[:, i].copy()
            elif site.path in self.rows:
                site, values[:, i] = self.rows[site.path]
            sites[i] = _with_facts(site, self._find_optimiser(p))
            if self.adopts and sites[i].facts.get("optimised") is False and site.path not in self.rows:
                absent.add(site.path)
        cuts = [
            {**cut, "frees": tuple(n for n in cut["frees"] if n not in self.rows and n not in absent)}
            for cut in trace.facts.get("graph_cuts", [])
        ]
        facts: Any = {**trace.facts, "graph_cuts": cuts}
        return _without(replace(trace, sites=tuple(sites), values=values, facts=facts), absent)

    def _find_absent(self, named: Mapping[str, Tensor], stepped: Collection[int]) -> set[str]:
        """The parameters of optimizers that did not take part."""
        others = [o for o in self.watched.optimizers if id(o) not in stepped]
        ids = {id(p) for o in others for group in o.param_groups for p in group["params"]}
        return {n for n, p in named.items() if id(p) in ids}

    def _find_optimiser(self, p: Tensor | None) -> dict[str, Any]:
        if not self.watched.references:
            return {}
        groups = (group for o in self.watched.optimizers for group in o.param_groups)
        held = any(id(q) == id(p) for group in groups for q in group["params"])
        return {"optimised": held or id(p) in self.elsewhere}


def find_gradient(p: Tensor | None) -> float | None:
    """Ln of the norm of the gradient that a parameter has by now; None without one, or if it is zero."""
    log = -math.inf if p is None or p.grad is None else log_norm(p.grad)
    return log if math.isfinite(log) else None


def _with_facts(site: Site, facts: Mapping[str, Any]) -> Site:
    joined: Any = {**site.facts, **facts}
    return replace(site, facts=joined)


def _without(trace: Trace, absent: Collection[str]) -> Trace:
    """The trace without the rows of some parameters, which lie on no axis."""
    kept = [i for i, s in enumerate(trace.sites) if s.role != "parameter" or s.path not in absent]
    if len(kept) == len(trace.sites):
        return trace
    place = {old: new for new, old in enumerate(kept)}
    axes = tuple(replace(a, sites=tuple(place[i] for i in a.sites)) for a in trace.axes)
    return replace(trace, sites=tuple(trace.sites[i] for i in kept), values=trace.values[:, kept], axes=axes)
