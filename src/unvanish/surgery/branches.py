"""Residual branches of a network, as its trace shows them: their layers, and the parameters that end them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from unvanish.core.trace import Site, Trace
from unvanish.surgery.anatomy import Anatomy
from unvanish.surgery.surgery import Surgery


@dataclass(frozen=True)
class ResidualBranch:
    """One branch: the weights of its layers in order, and the parameters that end it (weight and bias).

    `module`: whose output the branch adds; "" if what ends it is not called as a module of its own.
    """

    weights: tuple[str, ...]
    end: tuple[str, ...]
    module: str = ""


def branches(trace: Trace) -> list[ResidualBranch]:
    """The branches of every residual sum, from the input to the loss."""
    anatomy = Anatomy(trace)
    found, start = [], -1
    for i in anatomy.sites("add"):
        site = anatomy.site(i)
        order = int(site.order)
        if not (site.facts.get("row_residual") or site.facts.get("cut")):
            continue
        inside = [
            anatomy.site(j)
            for j in anatomy.sites("layer", "norm")
            if start < anatomy.site(j).order < order and anatomy.site(j).facts.get("parameters")
        ]
        weights = tuple(str(s.facts["weight"]) for s in inside if s.facts.get("weight"))
        if inside and weights:
            end = tuple(inside[-1].facts["parameters"])
            found.append(ResidualBranch(weights, end, _find_module(inside[-1], site)))
        start = order
    return found


def _find_module(last: Site, total: Site) -> str:
    """The module that is the last layer of a branch, and nothing else."""
    path = str(last.facts.get("module", ""))
    around = str(total.facts.get("module", ""))
    stems = {name.rpartition(".")[0] for name in last.facts.get("parameters", ())}
    return path if stems == {path} and path != around and not around.startswith(f"{path}.") else ""


@torch.no_grad()
def scale_parameters(surgery: Surgery, names: tuple[str, ...], factor: float, what: str) -> None:
    """Multiply some parameters by a factor."""
    for name in names:
        surgery.fill(name, surgery.parameter(name).detach() * factor, what)


class ResidualBlock(nn.Module):
    """x + f(x) with two layers, for the cures' examples."""

    def __init__(self, width: int, post: bool = False) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width) if post else None
        for layer in (self.one, self.two):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x + self.two(torch.relu(self.one(x)))
        return total if self.norm is None else self.norm(total)  # type: ignore[no-any-return]


def example(blocks: int = 16, post: bool = False) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A stack of unscaled blocks and a batch."""
    torch.manual_seed(0)
    net = nn.Sequential(*(ResidualBlock(24, post) for _ in range(blocks)), nn.Linear(24, 3))
    return net, (torch.randn(16, 24), torch.randint(0, 3, (16,)))
