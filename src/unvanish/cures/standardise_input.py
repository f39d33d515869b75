"""Standardises the model's input: (x - mean) / std, each feature by itself where they are uneven.

What it does

The training set's mean and deviation, as numbers or one for each column or channel, are registered as
buffers and applied to the float tensor among the model's arguments, of several to each that is large or far
from zero; other code and the data stay as they are. Where features differ by orders of magnitude, or an
outlier would set the deviation, each has its own centre and scale, by median and quartiles, and what is then
beyond `bound` is bounded. Of a feature that is never negative and spans decades (amounts, counts) the
logarithm is taken before, log(1 + x / unit), whose unit is the least usual value: on a straight scale its
small half lies at one place.

Safety

It changes the function: for untrained models.

Reference: LeCun et al. 1998.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.facts import InputFacts
from unvanish.core.trace import Trace
from unvanish.cures._scale import choose_scale, read_scale
from unvanish.probes.features import scale_by_logs
from unvanish.surgery.anatomy import round_digits
from unvanish.surgery.grafts import First, Graft
from unvanish.surgery.names import is_word
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"
BOUND = 10.0  # deviations: what is further away is an outlier
LARGE, SMALL = 5.0, 0.01  # of several inputs those are standardised whose deviation or mean is beyond these,
OFF = 3.0  # the mean by so many deviations, too: masks and relations of 0 and 1 stay what they are


class Standardise(nn.Module):
    """(x - mean) / std; one number, or one for each feature along `axis`; within +-`bound` if it is not 0.

    `units`: log(1 + x / unit) comes before, for each feature whose unit is not 0.
    """

    mean: Tensor
    std: Tensor
    units: Tensor

    def __init__(self, mean: Any, std: Any, axis: int = 1, bound: float = 0.0, units: Any = 0.0) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std), ("units", units)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.get_default_dtype()))
        self.axis, self.bound, self.logs = axis, bound, bool((self.units > 0).any())

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *(1,) * (x.ndim - 1 - self.axis % x.ndim)) if self.mean.ndim and x.ndim > 1 else ()
        x = scale_by_logs(x, self.units.view(shape)) if self.logs else x
        scaled = (x - self.mean.view(shape)) / self.std.view(shape)
        return scaled.clamp(-self.bound, self.bound) if self.bound else scaled


class Argument(Graft):
    """input -> module(input), for one argument, by its place if it is given by place and else by its name."""

    def __init__(self, module: nn.Module, place: int, name: str) -> None:
        self.module, self.place, self.name = module, place, name

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if self.name in kwargs:
            return args, {**kwargs, self.name: self.module(kwargs[self.name])}
        if not 0 <= self.place < len(args):
            raise RuntimeError(f"the argument {self.name!r}, which a cure standardises, was not given")
        changed = self.module(args[self.place])
        return (*args[: self.place], changed, *args[self.place + 1 :]), kwargs


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The mean and deviation of the batch's inputs, as numbers, or for each feature if they are uneven."""
    inputs = [trace.sites[i] for i in trace.where("input", floating=True)]
    inputs = [site for site in inputs if site.facts.get("std", 0) > 0]
    wrong = [s for s in inputs if _is_off(s.facts)] if len(inputs) > 1 else inputs
    for site in wrong or inputs[:1]:
        which = _name_argument(site.path) if len(inputs) > 1 else {}
        settings = {**_read_settings(site.facts), **which}
        yield replace(remedy, targets=(), parameters=settings, safety="retrain")
        if not which:
            return


def _name_argument(name: str) -> dict[str, Any]:
    """The setting for one of several inputs, `input.1` or a keyword's name; none for one within another."""
    first, _, place = name.partition(".")
    if first == "input" and place.isdigit():
        return {"place": int(place)}
    return {"argument": name} if is_word(name) and not name.startswith("_") else {}


def _is_off(facts: InputFacts) -> bool:
    """Whether an input beside others is far from zero, large or tiny, in one of its features."""
    each = facts.get("features") or [(facts["mean"], facts["std"])]
    return any(facts.get("units", ())) or any(
        scale > LARGE or scale < SMALL or abs(centre) > max(LARGE, OFF * scale) for centre, scale in each
    )


def _read_settings(facts: InputFacts) -> dict[str, Any]:
    if not (each := facts.get("features")):
        return {"mean": round_digits(float(facts["mean"])), "std": round_digits(float(facts["std"]))}
    settings = {
        "means": [round_digits(centre) for centre, _ in each],
        "stds": [round_digits(scale) for _, scale in each],
        "axis": facts["axis"],
        "bound": BOUND,
    }
    units = [round_digits(unit) for unit in facts.get("units", ())]
    return {**settings, "units": units} if units else settings


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    mean: float = 0.0,
    std: float = 1.0,
    means: Any = None,
    stds: Any = None,
    units: Any = None,
    axis: int = 1,
    bound: float = 0.0,
    argument: str = "",
    place: int = -1,
) -> None:
    """Standardise the input of the model, or of a module; `means`, `stds`, `units`: by feature.

    `argument`, `place`: which of several, by its name or by its place from 0; else the first float tensor.
    """
    path = targets[0] if targets and surgery.has(targets[0]) else ""
    centre, scale = choose_scale("standardise-input", mean, std, means, stds)
    if units is not None and torch.as_tensor(units).shape != torch.as_tensor(centre).shape:
        raise SurgeryError("standardise-input: units and means must be as many")
    new = Standardise(centre, scale, axis, bound, 0.0 if units is None else units)
    known = list(inspect.signature(surgery.module(path).forward).parameters)
    if argument and argument not in known:
        raise SurgeryError(f"standardise-input: the forward has no argument {argument!r}")
    where = known.index(argument) if argument else place
    name = argument or (known[place] if 0 <= place < len(known) else "")
    graft = Argument(new, where, name) if where >= 0 else First(new)
    surgery.register(path, "input", new)
    surgery.graft(path, graft, "input standardised")


def _say_argument(remedy: Remedy) -> list[str]:
    """A comment that says which argument x is, if there are several."""
    name, place = remedy.parameters.get("argument", ""), remedy.parameters.get("place", -1)
    if name:
        return [f"# x is the argument {name} of the forward"]
    return [f"# x is argument {place + 1} of the forward"] if place >= 0 else []


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    mean, std = read_scale(remedy.parameters)
    bound, whose = remedy.parameters.get("bound", 0.0), _say_argument(remedy)
    if not isinstance(mean, list):
        return [*whose, "# before the model, or in the dataset", f"x = (x - {mean}) / {std}"]
    axis = remedy.parameters.get("axis", 1)
    ones = f"[(..., *[None] * (x.ndim - {axis + 1}))]"  # so that they stand along the axis
    units = [float(unit) for unit in remedy.parameters.get("units") or ()]
    logs = [
        f"unit = torch.tensor({units}){ones}  # of what spans decades; 0: no logarithm",
        "x = torch.where(unit > 0, torch.log1p(x.clamp(min=0) / unit.clamp(min=1e-30)), x)",
    ]
    return [
        *whose,
        *(logs if units else ()),
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
