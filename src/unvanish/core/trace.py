"""Sites, axes and traces: what was measured, and where. Data only; NumPy is the one dependency.

Notable:
- A `Trace` is a dense array [step, site, statistic]; NaN means "not measured", -inf in a log means "exactly
  zero".
- Norms are natural logarithms of float64 norms (`*_log`), so a gradient of 1e-400 is still a number.
- Verdicts never read an absolute gradient: only differences of logs, which the scale of the loss cannot move.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from unvanish.core.brief import Brief
from unvanish.core.facts import (
    InputFacts,
    NodeFacts,
    OutputFacts,
    ParameterFacts,
    SiteFacts,
    StepFacts,
    TraceFacts,
)
from unvanish.core.registry import suggest
from unvanish.core.shown import Shown

Role = Literal["node", "parameter", "step", "input", "output"]
KEYS = frozenset(SiteFacts.__annotations__)

STATISTICS: dict[str, str] = {
    "forward_rms": "root mean square of the activation",
    "forward_max": "largest absolute activation",
    "spread": "||h - mean over samples|| / ||h||, 0 when all samples look alike",
    "cosine": "mean cosine between the samples of the batch",
    "token_cosine": "mean cosine between the tokens of a sample (activations of shape B, T, D)",
    "forward_nonfinite": "share of NaN or infinite activations",
    "backward_log": "ln of the L2 norm of dL/d(activation), float64; -inf when exactly zero",
    "backward_zero": "share of exact zeros in dL/d(activation)",
    "backward_nonfinite": "share of NaN or infinite elements in dL/d(activation)",
    "slope_sq": "<phi'^2>, the mean square slope of an activation function",
    "saturated": "share of units and samples with |phi'| < 0.05 max phi'",
    "dead": "share of units whose slope is zero for every sample and position",
    "pinned": "share of units that are in their flat region for every sample and position",
    "weight_log": "ln sqrt(||W||_F^2 / n_out): the weights' part of the backward gain",
    "weight_rms": "root mean square of the weights",
    "weight_nonfinite": "share of NaN or infinite weights",
    "weight_twins": "share of output units whose incoming weights equal another unit's",
    "gradient_log": "ln of the L2 norm of dL/d(parameter)",
    "gradient_zero": "share of exact zeros in dL/d(parameter)",
    "gradient_nonfinite": "share of NaN or infinite elements in dL/d(parameter)",
    "flushed": "share of gradient elements below the dtype's smallest number at its best loss scale",
    "overflowed": "share of gradient elements above the dtype's largest number",
    "entropy": "attention entropy / ln T, mean over heads and queries",
    "logit_max": "largest |attention logit|",
    "head_entropy": "attention entropy / ln T of the sharpest head, mean over queries",
    "log_z": "mean over rows of ln sum exp(output)",
    "load_excess": "(largest - mean) / mean of the tokens that a router sends to its experts",
    "load_entropy": "entropy of a router's load / ln(experts)",
    "idle_experts": "share of the experts that got no token for many looks",
    "query_value_log": "ln(||g_q|| / ||g_v||): the queries' gradient against the values'",
    "state_log": "ln ||dL/dh_t||, the whole gradient that reaches the state of a step",
    "carry_log": "ln of the gain of a gradient carried from the last step to this one",
    "norm_log": "ln of the L2 norm of the parameters",
    "update_log": "ln(||dW|| / ||W||) of the step taken",
}


@dataclass(frozen=True, repr=False)
class Site(Brief):
    """One place in the network: a module's path, its kind, which call of it, and facts about it.

    `role`: "node" (an operation of the autograd graph), "parameter", "step" (one time step of a recurrence),
    "input" or "output"; there is a constructor for each.
    """

    path: str
    kind: str
    call: int = 0
    role: Role = "node"
    facts: SiteFacts = field(default_factory=SiteFacts)

    @classmethod
    def node(cls, path: str, kind: str, call: int, facts: NodeFacts) -> Site:
        """An operation, or a call of a module that no operation stands for."""
        return cls(path, kind, call, "node", cast(SiteFacts, facts))

    @classmethod
    def parameter(cls, path: str, kind: str, facts: ParameterFacts) -> Site:
        """A parameter, or those of one module; `kind`: the class of its module."""
        return cls(path, kind, 0, "parameter", cast(SiteFacts, facts))

    @classmethod
    def step(cls, path: str, kind: str, call: int, facts: StepFacts) -> Site:
        """One time step of a recurrence; `call`: its number."""
        return cls(path, kind, call, "step", cast(SiteFacts, facts))

    @classmethod
    def input(cls, path: str, facts: InputFacts) -> Site:
        """A tensor of the batch."""
        return cls(path, "input", 0, "input", cast(SiteFacts, facts))

    @classmethod
    def output(cls, kind: str, call: int, facts: OutputFacts) -> Site:
        """A call of a loss function, or the loss itself."""
        return cls("loss", kind, call, "output", cast(SiteFacts, facts))

    @property
    def order(self) -> int:
        """When its operation ran, counted from 0; -1 if it is not one."""
        return self.facts.get("order", -1)

    @property
    def family(self) -> str:
        """What its operation is to the rules, "layer", "activation" ...; "" if it is not one."""
        return self.facts.get("family", "")

    @property
    def label(self) -> str:
        """The name shown to people: the path, and from the second call on its number."""
        name = self.path or "(model)"
        return f"{name}[{self.call}]" if self.call else name


@dataclass(frozen=True, repr=False)
class Axis(Brief):
    """A chain of dominators: every gradient path from the loss to `target` crosses each of `sites`.

    `sites` are indices into `Trace.sites`, ordered from the loss to the target.
    """

    name: str
    kind: Literal["depth", "time"]
    sites: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Trace(Shown):
    """What was measured: `values[step, site, statistic]`, NaN if not measured.

    `derived`: readings of it that several rules share.
    """

    sites: tuple[Site, ...]
    values: NDArray[np.float64]
    axes: tuple[Axis, ...] = ()
    facts: TraceFacts = field(default_factory=TraceFacts)
    statistics: tuple[str, ...] = tuple(STATISTICS)
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        expected = (len(self.sites), len(self.statistics))
        if self.values.ndim != 3 or self.values.shape[1:] != expected:
            raise ValueError(
                f"trace values have shape {self.values.shape}, expected (steps, {expected[0]}, {expected[1]})"
            )

    def column(self, statistic: str, step: int = -1) -> NDArray[np.float64]:
        """One statistic for every site, shape (sites,); KeyError names an unknown statistic."""
        if statistic not in self.statistics:
            raise KeyError(f"no statistic {statistic!r}; there are {', '.join(self.statistics)}")
        return self.values[step, :, self.statistics.index(statistic)]

    def value(self, site: int, statistic: str, step: int = -1) -> float:
        """One number; NaN if not measured, as some statistics are not in a training; KeyError if unknown."""
        try:
            place = self._places[statistic]
        except KeyError:
            if statistic not in STATISTICS:
                raise
            return math.nan
        return float(self.values.item(step, site, place))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.statistics)}

    def where(self, role: Role | None = None, **facts: Unpack[SiteFacts]) -> list[int]:
        """Indices of the sites with this role whose facts equal the given ones; KeyError names an unknown
        fact.
        """
        question = (role, *facts.items())
        if question not in self._found:
            for name in facts.keys() - KEYS:
                raise KeyError(f"no site has a fact {name!r}{suggest(name, KEYS)}")
            found = self._by_role.get(role, ()) if role is not None else range(len(self.sites))
            for name, wanted in facts.items():
                found = [i for i in found if self.sites[i].facts.get(name) == wanted]
            self._found[question] = found
        return list(self._found[question])

    @cached_property
    def _found(self) -> dict[Any, Sequence[int]]:
        return {}  # what was asked before

    @cached_property
    def _by_role(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i, site in enumerate(self.sites):
            found.setdefault(site.role, []).append(i)
        return found

    def depth(self) -> Axis | None:
        """The main depth axis, the longest one; None if the model has none."""
        axes = [axis for axis in self.axes if axis.kind == "depth"]
        return max(axes, key=lambda axis: len(axis.sites), default=None)
