"""Standardises the model's input: (x - mean) / std, each feature by itself where they are uneven.

What it does

The training set's mean and deviation, as numbers or one for each column or channel, are registered as buffers
and applied to the first float tensor among the model's arguments; other code and the data stay as they are.
Where features differ by orders of magnitude, or an outlier would set the deviation, each has its own centre
and scale, by median and quartiles, and what is then beyond `bound` is bounded.

Safety

It changes the function: for untrained models.

Reference: LeCun et al. 1998.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures._scale import choose_scale, read_scale
from unvanish.surgery.anatomy import round_digits
from unvanish.surgery.grafts import First
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"
BOUND = 10.0  # deviations: what is further away is an outlier


class Standardise(nn.Module):
    """(x - mean) / std; one number, or one for each feature along `axis`; within +-`bound` if it is not 0."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Any, std: Any, axis: int = 1, bound: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.get_default_dtype()))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.get_default_dtype()))
        self.axis, self.bound = axis, bound

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *(1,) * (x.ndim - 1 - self.axis % x.ndim)) if self.mean.ndim and x.ndim > 1 else ()
        scaled = (x - self.mean.view(shape)) / self.std.view(shape)
        return scaled.clamp(-self.bound, self.bound) if self.bound else scaled


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The mean and deviation of the batch's input, as numbers, or for each feature if they are uneven."""
    for i in trace.where("input"):
        facts = trace.sites[i].facts
        if not facts.get("floating") or not facts.get("std", 0) > 0:
            continue
        settings: dict[str, Any] = {
            "mean": round_digits(float(facts["mean"])),
            "std": round_digits(float(facts["std"])),
        }
        if each := facts.get("features"):
            settings = {
                "means": [round_digits(centre) for centre, _ in each],
                "stds": [round_digits(scale) for _, scale in each],
                "axis": facts["axis"],
                "bound": BOUND,
            }
        yield replace(remedy, targets=(), parameters=settings, safety="retrain")
        return


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    mean: float = 0.0,
    std: float = 1.0,
    means: Any = None,
    stds: Any = None,
    axis: int = 1,
    bound: float = 0.0,
) -> None:
    """Standardise the input of the model, or of a module; `means`, `stds`: by feature."""
    path = targets[0] if targets and surgery.has(targets[0]) else ""
    centre, scale = choose_scale("standardise-input", mean, std, means, stds)
    new = Standardise(centre, scale, axis, bound)
    surgery.register(path, "input", new)
    surgery.graft(path, First(new), "input standardised")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    mean, std = read_scale(remedy.parameters)
    bound = remedy.parameters.get("bound", 0.0)
    if not isinstance(mean, list):
        return ["# before the model, or in the dataset", f"x = (x - {mean}) / {std}"]
    axis = remedy.parameters.get("axis", 1)
    ones = f"[(..., *[None] * (x.ndim - {axis + 1}))]"  # so that they stand along the axis
    return [
        f"mean = torch.tensor({mean}){ones}  # of the training set",
        f"std = torch.tensor({std}){ones}",
        f"x = ((x - mean) / std){f'.clamp(-{bound:g}, {bound:g})' if bound else ''}  # before the model",
    ]


def case() -> tuple[Case, Remedy]:
    """Raw pixels."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3))
    batch = torch.rand(8, 16) * 255, torch.randint(0, 3, (8,))
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "standardise-input", (), "raw pixels", "retrain", {"mean": 127.5, "std": 73.6}
    )
