"""The nouns of the generator: a `Net` under construction, a `Plant` (sick and well), a final `Sample`.

Notable: a `Net` knows which of its modules carry the main stream, so that the generator can measure the
gradient there by itself; nothing of that reaches the tool under test, which sees only a `Sample`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from benchmarks.nets.reading import Reading


@dataclass(frozen=True)
class Net:
    """A model with its batch and loss, and where its hidden states are.

    `stream` names the modules whose outputs are the states along the depth, input side first; `layers` names
    modules whose outputs are pre-activations of `activation`; `sequence` names the module that consumes a
    (B, T, F) sequence; `attentions` names attention modules; `cut` names modules that every path crosses;
    `tolerate` names ailments that belong to the design here ("zero": gradients that are 0 on purpose).
    """

    family: str
    model: nn.Module
    batch: Any
    loss: Any
    stream: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    activation: Callable[[Tensor], Tensor] | None = None
    sequence: str = ""
    attentions: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    head: str = ""
    optimizer: Any = None
    tolerate: frozenset[str] = frozenset()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Net:
        """A copy with some fields changed; `facts` are merged."""
        facts = {**self.facts, **changes.pop("facts", {})}
        return replace(self, facts=facts, **changes)


@dataclass(frozen=True)
class Plant:
    """A planted fault: the sick net, the same net without the plant, and what must be seen.

    `symptom(sick, well)` returns "" where the fault is real and gone without the plant, else what is amiss.
    """

    sick: Net
    well: Net
    symptom: Callable[[Reading, Reading], str]
    native: bool = False  # measure in the model's own dtype: for faults of the number format


@dataclass(frozen=True)
class Sample:
    """One network of the benchmark; `fault` is the planted code, or None where it is healthy."""

    seed: int
    family: str
    fault: str | None
    model: nn.Module
    batch: Any
    loss: Any
    optimizer: Any
    description: Mapping[str, Any]


class Redraw(Exception):
    """Raised when a draw did not become what it was meant to be; the text is the reason."""
