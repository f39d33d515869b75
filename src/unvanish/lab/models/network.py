"""The network that a spec becomes: its rows as modules, and a plan of who reads whom.

Notable: an output is let go of as soon as its last reader has run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unvanish.lab.models.spec import Spec


@dataclass(frozen=True)
class Step:
    """One row in the forward: its module's name, its sources, who is no longer needed, and how it is called.

    `listed`: the module's forward takes its inputs as one list.
    """

    index: int
    name: str
    sources: tuple[int, ...]
    done: tuple[int, ...] = ()
    listed: bool = False


class Repeated(nn.Sequential):
    """The same block n times: the first input goes through all, the others go to each."""

    def forward(self, x: Tensor, *others: Any) -> Any:
        for block in self:
            x = block(x, *others)
        return x


class Network(nn.Module):
    """A network built from a `Spec`; its rows are its children, by name. `net(*inputs)` gives the last
    row's output.

    `facts`: what it was built for (classes, channels, size ...); `plan`: the order of the rows; `shapes`:
    of their outputs for a batch of two.
    """

    def __init__(
        self,
        spec: Spec,
        steps: Sequence[Step],
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
                    line, f"layer {step.index}: every module has {step.name!r} already; use another name"
                )
            self.add_module(step.name, module)

    @property
    def task(self) -> str:
        """What it is for: classify, sentiment, translate ..."""
        return self.spec.task

    @property
    def final(self) -> nn.Module:
        """The module of the last row."""
        found = self._modules[self.plan[-1].name]
        assert found is not None
        return found

    def encode(self, source: Tensor) -> Any:
        """What the translating row makes of source ids (B, S)."""
        return self._translator().encode(source)

    def translate(self, source: Tensor, length: int) -> Tensor:
        """Target ids (B, T), T at most `length`, made greedily from source ids (B, S)."""
        found: Tensor = self._translator().translate(source, length)
        return found

    def _translator(self) -> Any:
        found = [m for m in self.children() if hasattr(m, "translate")]
        if len(found) != 1:
            raise AttributeError(f"{self.spec.name} has {len(found)} rows that translate; one is needed")
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
) -> tuple[Step, ...]:
    """The steps of a network whose rows read `sources`."""
    last: dict[int, int] = {}
    for index, reads in enumerate(sources):
        last[index] = index  # an output nobody reads is let go of at once
        last |= dict.fromkeys(reads, index)
    done: dict[int, list[int]] = {}
    for value, index in last.items():
        done.setdefault(index, []).append(value)
    rows = zip(names, sources, listed, strict=True)
    return tuple(
        Step(i, name, reads, tuple(done.get(i, ())), flag) for i, (name, reads, flag) in enumerate(rows)
    )


def takes_list(module: nn.Module, inputs: int) -> bool:
    """Whether a module of several inputs has a forward with one parameter for all of them."""
    if inputs < 2:
        return False
    found = list(inspect.signature(module.forward).parameters.values())
    return len(found) == 1 and found[0].kind is not found[0].VAR_POSITIONAL
