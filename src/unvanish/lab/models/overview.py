"""A network row by row, as data: sources, module, output shape and parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unvanish.lab.models.network import Network


@dataclass(frozen=True)
class OverviewLine:
    """One row of a network: index, sources, name, module with repeats, arguments, shape, parameters."""

    index: int
    sources: str
    name: str
    module: str
    arguments: str
    shape: Any
    parameters: int


def summary(net: Network) -> tuple[OverviewLine, ...]:
    """The rows of a network; their parameters add up to those of the network if none is shared."""
    return tuple(_line(net, step.index) for step in net.plan)


def _line(net: Network, index: int) -> OverviewLine:
    row, step = net.spec.layers[index], net.plan[index]
    given = [*map(str, row.args), *(f"{k}={v}" for k, v in row.settings.items())]
    return OverviewLine(
        index,
        ", ".join(_source(net, source) for source in step.sources),
        row.name,
        f"{row.repeats} x {row.module}" if row.repeats > 1 else row.module,
        ", ".join(given),
        net.shapes[index] if net.shapes else None,
        sum(p.numel() for p in net.get_submodule(step.name).parameters()),
    )


def _source(net: Network, index: int) -> str:
    return net.spec.layers[index].name if index >= 0 else net.spec.inputs[-1 - index]
