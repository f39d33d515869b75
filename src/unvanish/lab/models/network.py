"""The network built from a spec: its rows as modules, and a plan of which reads which.

Notable: an output is freed as soon as its last reader has run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unvanish.lab.models.spec import Spec


@dataclass(frozen=True)
class NetworkStep:
    """One row in the forward: its module's name, its sources, and the outputs to free after it (`done`).

    `listed`: the module's forward takes its inputs as one list.
    """

    index: int
    name: str
    sources: tuple[int, ...]
    done: tuple[int, ...] = ()
    listed: bool = False


class Repeated(nn.Sequential):
    """The same block n times: the first input passes through all, the others go to each."""

    def forward(self, x: Tensor, *others: Any) -> Any:
        for block in self:
            x = block(x, *others)
        return x


class Network(nn.Module):
    """A network built from a `Spec`; its rows are its children, by name; the last row's output is its output.

    `facts`: what it was built for (classes, channels, size ...); `plan`: the order of the rows; `shapes`: of
    the rows' outputs for a batch of two.
    """

    def __init__(
        self,
        spec: Spec,
        steps: Sequence[NetworkStep],
        modules: Sequence[nn.Module],
        facts: Mapping[str, Any],
        shapes: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        self.spec, self.plan, self.facts, self.shapes = spec, tuple(steps), dict(facts), tuple(shapes)
        for step, module in zip(steps, modules, strict=True):
            if hasattr(self, step.name):
                line = spec.layers[step.index].line
                raise spec.error(
                    line,
                    f"layer {step.index}: {step.name!r} is an attribute of every module; use another name",
                )
            self.add_module(step.name, module)

    @property
    def task(self) -> str:
        """The task: classify, sentiment, translate ..."""
        return self.spec.task

    @property
    def final(self) -> nn.Module:
        """The module of the last row."""
        found = self._modules[self.plan[-1].name]
        assert found is not None
        return found

    def encode(self, source: Tensor) -> Any:
        """The translating row's encoding of source ids (B, S)."""
        return self._translator().encode(source)

    def translate(self, source: Tensor, length: int) -> Tensor:
        """Target ids (B, T), T at most `length`, decoded greedily from source ids (B, S)."""
        found: Tensor = self._translator().translate(source, length)
        return found

    def _translator(self) -> Any:
        found = [m for m in self.children() if hasattr(m, "translate")]
        if len(found) != 1:
            raise AttributeError(
                f"{self.spec.name} has {len(found)} rows that translate; exactly one is needed"
            )
        return found[0]

    def forward(self, *inputs: Any) -> Any:
        values: dict[int, Any] = {-1 - i: value for i, value in enumerate(inputs)}
        children = self._modules
        out: Any = None
        for step in self.plan:
            module = children[step.name]
            assert module is not None
            reads = [values[source] for source in step.sources]
            out = module(reads) if step.listed else module(*reads)
            values[step.index] = out
            for index in step.done:
                del values[index]
            del reads
        return out


def plan(
    sources: Sequence[tuple[int, ...]], names: Sequence[str], listed: Sequence[bool]
) -> tuple[NetworkStep, ...]:
    """The steps of a network whose rows read `sources`."""
    last: dict[int, int] = {}
    for index, reads in enumerate(sources):
        last[index] = index  # an output without a reader is freed at once
        last |= dict.fromkeys(reads, index)
    done: dict[int, list[int]] = {}
    for value, index in last.items():
        done.setdefault(index, []).append(value)
    rows = zip(names, sources, listed, strict=True)
    return tuple(
        NetworkStep(i, name, reads, tuple(done.get(i, ())), flag)
        for i, (name, reads, flag) in enumerate(rows)
    )


def takes_list(module: nn.Module, inputs: int) -> bool:
    """Whether a module with several inputs has a forward with a single parameter for all of them.

    One that joins any number (`widths_in`), as a head of detectors, takes a list of one, too.
    """
    if inputs < 2 and "widths_in" not in inspect.signature(type(module)).parameters:
        return False
    found = list(inspect.signature(module.forward).parameters.values())
    return len(found) == 1 and found[0].kind is not found[0].VAR_POSITIONAL
