"""What is examined, and what its two passes leave: the nouns of an examination."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from unvanish.core.facts import HookFacts, PrecisionFacts
from unvanish.core.omissions import Omissions
from unvanish.core.trace import Site
from unvanish.probes import calls
from unvanish.probes.backward import GradientFlow
from unvanish.probes.chain import Chain
from unvanish.probes.custom import CustomCall
from unvanish.probes.events import ModuleCall, Operation
from unvanish.probes.faults import Stop
from unvanish.probes.forward import Forward, Modules
from unvanish.probes.graph import Graph
from unvanish.probes.recurrent.loops import Recurrence

Measured = tuple[Site, dict[str, float]]  # a row of the trace: its site and its statistics


@dataclass(frozen=True)
class Manner:
    """How closely a model is looked at.

    `inputs`: float inputs require a gradient; `watched`: a function mode and hooks of modules see the
    forward; `open`: dropout, recomputation and fast paths are off; `nodes`: gradients are read at the nodes
    of the graph; `again`: passes of our own may run beside the first two; `signs`: what data, loss, weights
    and code give away is read; `sizes`: how large and how alike activations are. An experiment on the flow
    does without both.
    """

    inputs: bool = True
    watched: bool = True
    open: bool = True
    nodes: bool = True
    again: bool = True
    signs: bool = True
    sizes: bool = True


CLOSELY = Manner()
NUMBERS_ALONE = Manner(signs=False)
FLOW_ALONE = Manner(signs=False, sizes=False)
AS_IT_RUNS = Manner(inputs=False, open=False, again=False)  # somebody else's forward and backward


@dataclass(frozen=True)
class Specimen:
    """What is examined: the bare model, its modules by every name, its parameters and their norms by their
    first name, and what it is run with; `theory`: also note the program that ran.
    """

    model: nn.Module
    modules: Modules
    parameters: Mapping[str, Tensor]
    norms: Mapping[str, float]
    batch: Any
    loss: Callable[..., Any] | None
    optimizer: Any = None
    theory: bool = False
    manner: Manner = CLOSELY
    omissions: Omissions = field(default_factory=Omissions)


@dataclass(frozen=True)
class ForwardPass:
    """One forward: the call, what was watched, the output, and the loss.

    `entering`: statistics of the inputs by name; `objective`: what the loss is; `overflow`: what is followed
    instead of a loss that overflows; `custom`: calls of functions whose backward somebody wrote; `read`: the
    rows of what the loss reads, if they were read before a backward that frees what its nodes saved.
    """

    call: calls.Call
    watched: Forward
    entering: Mapping[str, dict[str, float]]
    output: Any
    loss: Tensor
    objective: str
    overflow: Tensor | None = None
    custom: Sequence[CustomCall] = ()
    read: Sequence[Measured] | None = None

    @property
    def root(self) -> Tensor:
        """Where the backward starts."""
        return self.loss if self.overflow is None else self.overflow


@dataclass(frozen=True)
class BackwardPass:
    """One backward; empty if the loss has no graph.

    `chains`: the depth axes, the longest first; `stops`, `broken`: where gradients end, or become non-finite;
    `severed`: cells whose state leaves the graph; `rounding`: parameters whose gradient cancels; `hooks`:
    those that set gradients to zero.
    """

    graph: Graph | None = None
    chains: Sequence[Chain] = ()
    flow: GradientFlow | None = None
    stops: Sequence[Stop] = ()
    broken: Sequence[Operation | ModuleCall] = ()
    recurrences: Sequence[Recurrence] = ()
    severed: Mapping[str, tuple[int, int, str, str]] = field(default_factory=dict)
    precision: PrecisionFacts = field(default_factory=PrecisionFacts)
    rounding: frozenset[str] = frozenset()
    hooks: Sequence[HookFacts] = ()
