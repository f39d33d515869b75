"""The names that published weights of a network have for what is called otherwise here.

Notable: a block says in `PUBLISHED` what its parts are called there; the name of a tensor is translated part
by part, each by the class that holds it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

PREFIX = "model."


def published(net: nn.Module, name: str) -> str:
    """The published name of one of a network's tensors."""
    holder: nn.Module | None = net
    parts = []
    for part in name.split("."):
        table: Mapping[str, str] = getattr(type(holder), "PUBLISHED", {})
        parts.append(table.get(part, part))
        holder = holder._modules.get(part) if holder is not None else None
    return PREFIX + ".".join(parts)


def renamed(net: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under published names, under those of the network; as they are where they have none of them."""
    own = {name: published(net, name) for name in net.state_dict()}
    known = {name: tensors[there] for name, there in own.items() if there in tensors}
    return known if len(known) > len(own) // 2 else dict(tensors)
