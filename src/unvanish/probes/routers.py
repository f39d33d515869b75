"""Routers of mixtures of experts: which share of the tokens each expert gets.

Notable: a choice of largest values is a router's if the module that makes it, or one around it, holds as many
experts as there are values: a list of that many modules, or weights whose first axis is that long. So choices
of tokens, of codes, or of neighbours are none.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from unvanish.core.facts import RouterFacts
from unvanish.probes.choices import Choice
from unvanish.probes.events import ModuleCall
from unvanish.probes.forward import Forward

AROUND = 2  # modules around the one that chooses


def find_routers(watched: Forward) -> list[RouterFacts]:
    """The load of every router of the forward, in the order they ran."""
    found: list[RouterFacts] = []
    for choice in watched.choices:
        if choice.values not in {n for module in around(choice.caller) for n in count_experts(module)}:
            continue
        counts = torch.bincount(choice.indices.flatten().cpu(), minlength=choice.values).double()
        if len(counts) == choice.values:
            chosen = choice.indices.numel() // choice.rows
            load = tuple((counts / counts.sum()).tolist())
            facts: RouterFacts = {
                "path": choice.caller.path,
                "load": load,
                "chosen": chosen,
                "rows": choice.rows,
                "certain": _measure_certainty(choice),
            }
            found.append(facts)
    return found


def _measure_certainty(choice: Choice) -> float:
    """The mean share of the probability that the chosen experts have; scores may be logits or gates."""
    scores = choice.scores.reshape(choice.rows, choice.values).double()
    gates = bool((scores >= 0).all()) and bool((scores <= 1).all())
    share = scores / scores.sum(-1, keepdim=True).clamp_min(1e-300) if gates else scores.softmax(-1)
    return float(share.gather(-1, choice.indices.reshape(choice.rows, -1)).sum(-1).mean())


def around(call: ModuleCall) -> Iterator[nn.Module]:
    """The module of a call and those around it, in which experts are looked for."""
    place: ModuleCall | None = call
    for _ in range(AROUND + 1):
        if place is None:
            return
        yield place.module
        place = place.parent


def count_experts(module: nn.Module) -> Iterator[int]:
    """How many experts a module may hold: lists of modules, weights (experts, in, out)."""
    children = [*module.children()]
    held = [inner for child in children for inner in child.children()]
    for holder in (module, *children, *held):
        if isinstance(holder, (nn.ModuleList, nn.ModuleDict)):
            yield len(holder)
    for child in (module, *children):
        for p in child.parameters(recurse=False):
            if p.ndim == 3:  # (experts, in, out)
                yield p.shape[0]
    for value in vars(module).values():
        if isinstance(value, list) and value and all(isinstance(v, nn.Module) for v in value):
            yield len(value)
