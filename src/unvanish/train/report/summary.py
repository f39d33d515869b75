"""A network in lines: its task, its layers and their parameters."""

from __future__ import annotations

import torch

from unvanish.train.learner import Learner
from unvanish.train.loop.freezing import list_layers


def describe(learner: Learner) -> str:
    """The lines; a network whose data is not known is built with the facts of its YAML."""
    with torch.random.fork_rng(devices=[]):
        network = learner.adapt(learner.facts)
    rows = [
        (name, type(layer).__name__, sum(p.numel() for p in layer.parameters()))
        for name, layer in list_layers(network).items()
    ]
    total = sum(p.numel() for p in network.parameters())
    trains = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = "" if trains == total else f", {total - trains:,} frozen"
    wide = max((len(name) for name, _, _ in rows), default=0)
    lines = [f"{learner.name} ({learner.task}): {len(rows)} layers, {total:,} parameters{frozen}"]
    lines += [f"  {name:<{wide}}  {count:>12,}  {kind}" for name, kind, count in rows]
    return "\n".join(lines)
