"""Tasks: what a network is asked for, the loss that asks it, and how well it answers.

One task a file, found by being there. A file says `FITNESS` (the metric that decides which weights are best),
`HIGHER` (whether more of it is better), `loss(smoothing)` and `metrics(facts, decode)`; its docstring is its
page. Where it is not as usual it also says `SUMMED` (gradients are those of the loss summed over the batch),
`DEFAULTS` (of a training's arguments), `EXPECT` (of very few steps), `STRIDE` (what must divide the side of
images), `EXPECTED` (findings that belong to it), `GAINS` (parts of the loss that can be weighed),
`rate(classes)` (AdamW's) and `invented(batch, facts, generator)` (targets to examine with).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unvanish.core.registry import suggest
from unvanish.lab.tasks._tokens import BEGIN, END, PAD, UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor

    from unvanish.lab.tasks._metrics import Metrics

__all__ = ["BEGIN", "END", "PAD", "UNKNOWN", "Task", "task", "tasks"]


@dataclass(frozen=True)
class Task:
    """One task: its name, its page, its loss, its metrics, and which of them decides."""

    name: str
    module: ModuleType

    @property
    def fitness(self) -> str:
        """The metric by which weights are called best."""
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
        """Arguments of a training that this task has its own defaults for."""
        return dict(getattr(self.module, "DEFAULTS", {}))

    @property
    def expect(self) -> str:
        """What to expect of a run of very few steps."""
        return str(getattr(self.module, "EXPECT", "expect little"))

    @property
    def expected(self) -> tuple[str, ...]:
        """Codes of findings that belong to a training of this task: no fault of it."""
        return tuple(getattr(self.module, "EXPECTED", ()))

    @property
    def stride(self) -> int:
        """What must divide the side of images."""
        return int(getattr(self.module, "STRIDE", 1))

    def rate(self, classes: int | None) -> float | None:
        """AdamW's learning rate for so many classes, where the task has one of its own."""
        made = getattr(self.module, "rate", None)
        return None if made is None or classes is None else float(made(classes))

    def samples(self, x: Any, y: Any) -> int:
        """How many samples a batch holds."""
        if self.summed:  # targets are a row an object
            return len(x)
        return len(y[0]) if isinstance(y, tuple | list) else len(y)

    def invented(self, batch: int, facts: Mapping[str, Any], generator: Any) -> Any:
        """Random targets to examine a network with; None where the output's shape says all."""
        made = getattr(self.module, "invented", None)
        return None if made is None else made(batch, facts, generator)

    @property
    def page(self) -> str:
        """The task's documentation, its file's docstring."""
        return inspect.cleandoc(self.module.__doc__ or "")

    @property
    def gains(self) -> tuple[str, ...]:
        """Parts of its loss that can be weighed."""
        return tuple(getattr(self.module, "GAINS", ()))

    def loss(self, smoothing: float = 0.0, **gains: float) -> Callable[[Any, Any], Tensor]:
        """The task's loss, for calls with output and y; `smoothing` in [0, 1) is that of the labels, `gains`
        weigh its parts.
        """
        if not 0 <= smoothing < 1:
            raise ValueError(f"label smoothing must lie in [0, 1), it is {smoothing}; 0.1 is usual")
        made: Callable[[Any, Any], Tensor] = self.module.loss(smoothing, **gains)
        return made

    def metrics(self, facts: Mapping[str, Any], decode: Callable[[list[int]], str] | None = None) -> Metrics:
        """Fresh metrics for data with these facts; `decode` makes text of ids for metrics that read it."""
        made: Metrics = self.module.metrics(facts, decode)
        return made


@cache
def tasks() -> Mapping[str, Task]:
    """Every task by name."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_") and not info.ispkg:
            found[info.name] = Task(info.name, importlib.import_module(f"{__name__}.{info.name}"))
    return dict(sorted(found.items()))


def task(name: str) -> Task:
    """A task by its name; KeyError suggests the nearest one."""
    table = tasks()
    if name not in table:
        raise KeyError(f"no task {name!r}{suggest(name, table)}; there are {', '.join(table)}")
    return table[name]
