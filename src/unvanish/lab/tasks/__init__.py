"""Tasks: what a network is trained for, its loss and its metrics.

One task per file; every file of this folder is one, except those whose names begin with an underscore. A file
defines `FITNESS` (the metric that decides which weights are best), `HIGHER` (whether more of it is better),
`loss(smoothing)`, `metrics(facts, decode)` and `example(facts, generator)` (random outputs and targets, on
which the contract of tasks is tested; not if it is `SUMMED`); its docstring is its page. Optional are
`SUMMED` (gradients are those of the loss summed over the batch), `DEFAULTS` (of a training's arguments),
`EXPECT` (what very few steps give), `STRIDE` (a divisor of the side of images), `EXPECTED` (codes of findings
that are normal here), `GAINS` (weights of the parts of the loss), `rate(classes)` (AdamW's learning rate) and
`invent_targets(batch, facts, generator)` (random targets to examine a network with).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unvanish.core import registry

if TYPE_CHECKING:
    from torch import Tensor

    from unvanish.lab.tasks._metrics import Metrics


@dataclass(frozen=True)
class Task:
    """One task: its name, page, loss, metrics, and the metric that decides."""

    name: str
    module: ModuleType

    @property
    def fitness(self) -> str:
        """The metric that decides which weights are best."""
        return str(self.module.FITNESS)

    @property
    def higher(self) -> bool:
        """Whether more of the fitness is better."""
        return bool(self.module.HIGHER)

    @property
    def summed(self) -> bool:
        """Whether gradients are those of the loss summed over the batch, not of its mean."""
        return bool(getattr(self.module, "SUMMED", False))

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Arguments of a training for which this task has its own defaults."""
        return dict(getattr(self.module, "DEFAULTS", {}))

    @property
    def expect(self) -> str:
        """What to expect of a run of very few steps, in words."""
        return str(getattr(self.module, "EXPECT", "expect little"))

    @property
    def expected(self) -> tuple[str, ...]:
        """Codes of findings that are normal in a training of this task."""
        return tuple(getattr(self.module, "EXPECTED", ()))

    @property
    def stride(self) -> int:
        """The number of pixels that must divide the side of images."""
        return int(getattr(self.module, "STRIDE", 1))

    def rate(self, classes: int | None) -> float | None:
        """AdamW's learning rate for `classes` classes, None if the task has none of its own."""
        made = getattr(self.module, "rate", None)
        return None if made is None or classes is None else float(made(classes))

    def samples(self, x: Any, y: Any) -> int:
        """How many samples a batch holds."""
        if self.summed:  # targets are one row per object
            return len(x)
        return len(y[0]) if isinstance(y, tuple | list) else len(y)

    def invent_targets(self, batch: int, facts: Mapping[str, Any], generator: Any) -> Any:
        """Random targets to examine a network with; None if the shape of the output is enough."""
        made = getattr(self.module, "invent_targets", None)
        return None if made is None else made(batch, facts, generator)

    @property
    def page(self) -> str:
        """The task's documentation, its file's docstring."""
        return registry.page(self.module)

    @property
    def gains(self) -> tuple[str, ...]:
        """Parts of its loss whose weights can be set."""
        return tuple(getattr(self.module, "GAINS", ()))

    def loss(self, smoothing: float = 0.0, **gains: float) -> Callable[[Any, Any], Tensor]:
        """The task's loss of output and y; `smoothing` in [0, 1) of labels, `gains` of its parts."""
        if not 0 <= smoothing < 1:
            raise ValueError(f"label smoothing must lie in [0, 1), it is {smoothing}; 0.1 is usual")
        made: Callable[[Any, Any], Tensor] = self.module.loss(smoothing, **gains)
        return made

    def metrics(self, facts: Mapping[str, Any], decode: Callable[[list[int]], str] | None = None) -> Metrics:
        """New metrics for data with these facts; `decode` turns ids into text for metrics that need it."""
        made: Metrics = self.module.metrics(facts, decode)
        return made


@cache
def tasks() -> Mapping[str, Task]:
    """Every task by name, in alphabetical order."""
    found = dict(registry.modules(__name__, __path__))
    return {name: Task(name, found[name]) for name in sorted(found)}


def task(name: str) -> Task:
    """A task by its name; KeyError suggests the nearest one."""
    table = tasks()
    if name not in table:
        raise KeyError(f"no task {name!r}{registry.suggest(name, table)}; there are {', '.join(table)}")
    return table[name]
