"""Adds an identity path around each layer and its activation: identity * x + branch * phi(layer(x)).

What it does

If the activation after a layer has the shape of the layer's input, the input is added to it. With `branch` =
L^-1/2 (learned) the L blocks together change the gradient by a factor of about e^1/2, for any layers.
`branch` = 0 is SkipInit or ReZero: at the start the network is the identity. With `branch` = 1 and `identity`
= 0 (learned) the skip is exact: the network computes the same as before, and training opens the skip.

Safety

`retrain`; `exact` for branch 1, identity 0. Layers are found by their weights, so it works in any forward.

References: He et al. 2016; De and Smith 2020 (SkipInit); Bachlechner et al. 2021 (ReZero).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.probes.operations import ACTIVATIONS, LAYERS
from unvanish.surgery.anatomy import Anatomy, round_digits
from unvanish.surgery.grafts import Skip
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """Every layer that feeds an activation and keeps its input's shape."""
    anatomy = Anatomy(trace)
    attending = [
        anatomy.site(i) for i in anatomy.sites("attention") if anatomy.site(i).label in remedy.targets
    ]
    if attending:
        paths = tuple(
            dict.fromkeys(str(anatomy.site(i).facts.get("module", "")) for i in anatomy.sites("attention"))
        )
        settings = {"branch": round_digits(len(paths) ** -0.5)}
        yield replace(remedy, targets=tuple(p for p in paths if p), parameters=settings, safety="retrain")
        return
    shapes = {x.site: anatomy.site(x.site).facts.get("shape") for x in anatomy.layers}
    wanted = []
    for x, before in zip(anatomy.layers[1:], anatomy.layers, strict=False):
        square = x.fan_out > 0 and x.fan_in % x.fan_out == 0  # as many channels in as out, times the kernel
        alike = square and shapes[x.site] == shapes[before.site]
        if x.activation and not x.head and alike and x.source != "":
            wanted.append(x.weight)
    if wanted:
        branch = round_digits(len(wanted) ** -0.5)
        yield replace(remedy, targets=tuple(wanted), parameters={"branch": branch}, safety="retrain")


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    branch: float = 0.0,
    identity: float = 1.0,
    learn: bool = True,
) -> None:
    """Add skips around `targets`: a weight stands for its layer and activation, a module for itself.

    `learn`: the branch's factor (or the gate) is a parameter.
    """
    gate = branch == 1.0 and identity == 0.0
    pairs: list[tuple[Tensor, Any, Any]] = []
    for name in targets:
        whole = surgery.has(name)
        owner = name if whole else name.rpartition(".")[0]
        factor: Any = identity if gate else branch
        if learn:
            device, dtype = surgery.like(owner)
            factor = nn.Parameter(torch.full((), factor, device=device, dtype=dtype))
            surgery.register(owner, "gate" if gate else "branch", factor)
        factors = (branch, factor) if gate else (factor, identity)
        if whole:
            surgery.graft(name, Skip(*factors), "a skip around it")
        else:
            pairs.append((surgery.parameter(name), *factors))
    if not targets:
        raise SurgeryError("add-skips: no targets")
    if not pairs:
        return
    spans = Spans(pairs)
    names = {*LAYERS, *ACTIVATIONS}
    surgery.graft("", Rewire(dict.fromkeys(names, spans)), f"skips around {len(pairs)} layers")


class Spans:
    """Keeps a layer's input until its activation has run, and adds the two."""

    def __init__(self, pairs: list[tuple[Tensor, Any, Any]]) -> None:
        self.pairs = pairs

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        if isinstance(weight, nn.Parameter) and weight.ndim > 1:
            found = next((p for p in self.pairs if p[0] is weight), None)
            calls.memory["open"] = None if found is None else (args[0] if args else kwargs["input"], found)
            return func(*args, **kwargs)
        out, opened = func(*args, **kwargs), calls.memory.pop("open", None)
        if opened is None or not isinstance(out, Tensor) or out.shape != opened[0].shape:
            return out
        x, (_, branch, identity) = opened
        return branch * out + identity * x


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    branch = remedy.parameters.get("branch", 0.0)
    return [
        f"# around {len(remedy.targets)} layers, each with alpha = nn.Parameter(torch.tensor({branch:.4g})):",
        "#   x = x + alpha * activation(layer(x))",
    ]


def case() -> tuple[Case, Remedy]:
    """A gate that changes nothing yet, in a forward written as a loop."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.stem(x))
            for layer in self.layers:
                x = torch.tanh(layer(x))
            out: Tensor = self.head(x)
            return out

    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    targets = tuple(f"layers.{i}.weight" for i in range(6))
    settings = {"branch": 1.0, "identity": 0.0}
    return Case(Net(), batch, nn.CrossEntropyLoss()), Remedy(
        "add-skips", targets, "an identity path", "exact", settings
    )
