"""The names of a network's tensors in published weights, both ways.

Notable: a block lists in `PUBLISHED` the published names of its parts; a tensor's name is translated part by
part, each by the class that holds it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

PREFIX = "model."


def to_published(net: nn.Module, name: str) -> str:
    """The published name of one of a network's tensors."""
    holder: nn.Module | None = net
    parts = []
    for part in name.split("."):
        table: Mapping[str, str] = getattr(type(holder), "PUBLISHED", {})
        parts.append(table.get(part, part))
        holder = holder._modules.get(part) if holder is not None else None
    return PREFIX + ".".join(parts)


def from_published(net: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors renamed from published names to the network's own; those that have no such name keep theirs."""
    own = {to_published(net, name): name for name in net.state_dict()}
    return {own.get(name, name): tensor for name, tensor in tensors.items()}
