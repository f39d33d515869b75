"""A model in lines: what it is, its layers and their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from unvanish.train.loop.freezing import listed

if TYPE_CHECKING:
    from unvanish.train.model import Model


def described(model: Model) -> str:
    """The lines; a network whose facts are not known is built with those of its YAML."""
    with torch.random.fork_rng(devices=[]):
        network = model.build(**model.facts)
    rows = [
        (name, type(layer).__name__, sum(p.numel() for p in layer.parameters()))
        for name, layer in listed(network).items()
    ]
    total = sum(p.numel() for p in network.parameters())
    trains = sum(p.numel() for p in network.parameters() if p.requires_grad)
    held = "" if trains == total else f", {total - trains:,} frozen"
    wide = max((len(name) for name, _, _ in rows), default=0)
    lines = [f"{model.name} ({model.task}): {len(rows)} layers, {total:,} parameters{held}"]
    lines += [f"  {name:<{wide}}  {count:>12,}  {kind}" for name, kind, count in rows]
    return "\n".join(lines)
