"""Replaces the activation by one whose slope is near one at its inputs.

What it does

Activation modules are replaced by modules, wherever they are registered; functional calls (`torch.sigmoid(x)`
in a forward) are rewired while that forward runs. The weights stay. Weights drawn for the old function
usually have the wrong size for the new one, so this cure is planned together with `reinitialise`.

Safety

It changes the function: for untrained models, or with training after it.

References: Nair and Hinton 2010 (ReLU); Maas et al. 2013 (leaky); Hendrycks and Gimpel 2016 (GELU).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures.reinitialise import EVERYWHERE
from unvanish.surgery.activations import MODULES, replace_calls
from unvanish.surgery.anatomy import Anatomy
from unvanish.surgery.names import list_names, shorten, split_calls
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"
STEPS = (
    "sign",
    "sgn",
    "heaviside",
)  # not activations to the recorder, but a smooth function can replace them


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The sites of the finding; if it names very many, every activation of the same kinds."""
    sites = {trace.sites[i].label: trace.sites[i] for i in Anatomy(trace).sites("activation")}
    sites |= {s.label: s for s in trace.sites if s.role == "node" and s.kind in STEPS}
    named = [sites[t] for t in remedy.targets if t in sites]
    if len(remedy.targets) >= EVERYWHERE:
        kinds = {s.kind for s in named}
        named = [s for s in sites.values() if s.kind in kinds]
    if named:
        yield replace(
            remedy,
            targets=tuple(s.label for s in named),
            parameters={"to": remedy.parameters.get("to", "relu")},
        )


def apply(
    surgery: Surgery, targets: tuple[str, ...], *, to: str = "relu", settings: dict[str, Any] | None = None
) -> None:
    """Replace the activations at `targets` by the function `to`."""
    replace_calls(surgery, targets, to, settings)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    to, settings = str(remedy.parameters.get("to", "relu")), remedy.parameters.get("settings") or {}
    return write_swap(remedy.targets, to, {str(k): v for k, v in settings.items()})


def write_swap(targets: Sequence[str], to: str, settings: Mapping[str, Any]) -> list[str]:
    """Modules swapped by name, and where a forward calls another function; ValueError if it is unknown."""
    if to not in MODULES:
        raise ValueError(f"there is no activation {to!r}")
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    modules, calls = split_calls(targets, {*MODULES, *STEPS})
    lines = [
        f"for name in {list_names(modules)}:",
        f"    model.set_submodule(name, nn.{MODULES[to].__name__}({given}))",
    ]
    told = [
        f"# in the forward, in place of {shorten(tuple(calls))}:",
        f"#   {to}(x{', ' * bool(given)}{given})",
    ]
    return [*(lines if modules else []), *(told if calls else [])]


def case() -> tuple[Case, Remedy]:
    """A class that calls torch.sigmoid in its forward."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = nn.ModuleList(nn.Linear(16, 16) for _ in range(4)), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.sigmoid(layer(x))
            out: Tensor = self.head(x)
            return out

    batch = torch.randn(8, 16), torch.randint(0, 3, (8,))
    targets = ("sigmoid", "sigmoid[1]", "sigmoid[2]", "sigmoid[3]")
    return Case(Net(), batch, nn.CrossEntropyLoss()), Remedy(
        "swap-activation", targets, "a slope near one", "retrain", {"to": "relu"}
    )
