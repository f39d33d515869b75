"""Rewrites sigmoid as tanh, exactly: sigma(x) = (1 + tanh(x/2))/2, halves moved into the layers around it.

What it does

The layer before a sigmoid is halved, weight and bias; the sigmoid becomes a tanh; the layer after it is
halved too, and half the sum of its old weights is added to its bias. The outputs stay the same up to
rounding, and the activations now have mean zero and slope one.

Safety

Exact: the same function. Every sigmoid needs a layer with parameters directly before it and a layer with a
bias directly after it, and nothing else may read its input or output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures.reinitialise import bias_of
from unvanish.cures.swap_activation import write_swap
from unvanish.surgery.activations import replace_calls
from unvanish.surgery.anatomy import Anatomy
from unvanish.surgery.names import list_names
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """Every sigmoid with a layer directly before it and one directly after."""
    before, behind, sites = find_pairs(trace)
    if sites:
        settings = {"before": before, "behind": behind}
        yield replace(remedy, targets=tuple(sites), parameters=settings, safety="exact")


def find_pairs(trace: Trace) -> tuple[list[str], list[str], list[str]]:
    """(weights before, weights after, labels) of the sigmoids between two layers."""
    anatomy = Anatomy(trace)
    by_site = {layer.site: layer for layer in anatomy.layers}
    before, behind, sites = [], [], []
    nodes = [
        i
        for i in anatomy.nodes
        if anatomy.site(i).family in ("layer", "activation", "norm", "add", "recurrent")
    ]
    for a, b, c in zip(nodes, nodes[1:], nodes[2:], strict=False):
        if (
            anatomy.site(b).kind == "sigmoid"
            and a in by_site
            and c in by_site
            and by_site[c].bias
            and by_site[a].kind == "linear" == by_site[c].kind
        ):
            before.append(by_site[a].weight)
            behind.append(by_site[c].weight)
            sites.append(anatomy.site(b).label)
    return before, behind, sites


def apply(
    surgery: Surgery, targets: tuple[str, ...], *, before: Sequence[str] = (), behind: Sequence[str] = ()
) -> None:
    """Rewrite the sigmoids at `targets`, between the weights `before` and `behind`, pair by pair."""
    if not len(targets) == len(before) == len(behind):
        raise SurgeryError("sigmoid-to-tanh: `before` and `behind` must name one weight for each target")
    for name in before:
        scale_layer(surgery, name, 0.5)
    for name in behind:
        weight, bias = surgery.parameter(name), bias_of(surgery, name)
        if not bias:
            raise SurgeryError(
                f"sigmoid-to-tanh: the layer of {name} has no bias to absorb the sigmoid's mean"
            )
        shift = weight.detach().double().flatten(1).sum(1) / 2
        p = surgery.parameter(bias)
        surgery.fill(bias, (p.detach().double() + shift).to(p.dtype), "half the weights' sum added")
        surgery.fill(name, weight.detach() / 2, "halved")
    replace_calls(surgery, targets, "tanh")


def scale_layer(surgery: Surgery, weight: str, factor: float) -> None:
    """Multiply a layer's weight and bias by a factor."""
    for name in (weight, bias_of(surgery, weight)):
        if name:
            surgery.fill(name, surgery.parameter(name).detach() * factor, f"times {factor:g}")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    before, behind = (tuple(map(str, remedy.parameters.get(key, ()))) for key in ("before", "behind"))
    layer = "layer = model.get_submodule(name.rpartition('.')[0])"
    return [
        "# sigmoid(z) = (1 + tanh(z / 2)) / 2",
        f"for name in {list_names(before)}:",
        f"    {layer}",
        "    for p in layer.parameters(recurse=False):",
        "        p.data /= 2",
        f"for name in {list_names(behind)}:",
        f"    {layer}",
        "    layer.bias.data += layer.weight.data.flatten(1).sum(1) / 2",
        "    layer.weight.data /= 2",
        *write_swap(remedy.targets, "tanh", {}),
    ]


def case() -> tuple[Case, Remedy]:
    """Three sigmoid layers."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 3))
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    settings = {"before": ["0.weight", "2.weight"], "behind": ["2.weight", "4.weight"]}
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "sigmoid-to-tanh", ("1", "3"), "mean zero", "exact", settings
    )
