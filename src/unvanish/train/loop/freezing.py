"""Layers that do not train: the first n, or those named."""

from __future__ import annotations

from torch import nn

from unvanish.core.registry import suggest
from unvanish.train.errors import TrainError


def freeze(model: nn.Module, wanted: int | list[int] | list[str] | None) -> list[str]:
    """Freeze the parameters of layers; returns the layers' names. TrainError if a layer is unknown.

    A whole number n: the first n layers, as `list_layers` lists them. A list: layers by number or by name.
    """
    if wanted is None or wanted == []:
        return []
    layers = list_layers(model)
    names = list(layers)
    if isinstance(wanted, int) and wanted > len(names):
        raise TrainError(f"freeze={wanted}: the network has {len(names)} layers ({', '.join(names[:8])})")
    chosen = list(range(wanted)) if isinstance(wanted, int) else wanted
    found = [_layer(entry, names) for entry in chosen]
    for name in found:
        layers[name].requires_grad_(False)
    return found


def list_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The network's children by name, in order; if its only child is a list of layers, the layers of that."""
    children = dict(model.named_children())
    lists = [m for m in children.values() if isinstance(m, (nn.ModuleList, nn.ModuleDict))]
    if len(children) == 1 and lists:
        return dict(lists[0].named_children())
    return children


def _layer(entry: int | str, names: list[str]) -> str:
    if isinstance(entry, int):
        if not 0 <= entry < len(names):
            raise TrainError(f"freeze={entry}: there are {len(names)} layers, from 0")
        return names[entry]
    if entry not in names:
        raise TrainError(
            f"freeze: there is no layer {entry!r}{suggest(entry, names)}; there are {', '.join(names)}"
        )
    return entry
