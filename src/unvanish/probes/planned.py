"""The step that an optimizer will take with each parameter, against what the parameter's dtype can hold.

Notable:
- Only torch's own optimizers are read: others may keep weights in float32, or round at random.
- A schedule that warms up counts with the rate that it leads to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unvanish.core.facts import ParameterFacts

ELEMENTS = 4096  # of a parameter that are looked at
ADAPTIVE = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta")
SQUARES = {  # they divide by a root of squares, and epsilon: the share of a square in the first step
    **dict.fromkeys(("Adam", "AdamW", "NAdam"), 0.001),
    "RMSprop": 0.01,
    "Adagrad": 1.0,
}
FULL = 4  # bytes of a number: a step that follows the gradient's size follows the loss's scale too
UNUSUAL = 0.5  # a weight decay: healthy ones reach 0.3


@dataclass(frozen=True)
class Plan:
    """How one group of an optimizer moves its parameters."""

    kind: str  # class of the optimizer
    rate: float
    eps: float
    momentum: float
    decay: float  # weight decay


def read_plans(optimizer: Any) -> Mapping[int, Plan]:
    """The plan for each parameter that one of torch's optimizers holds, by id."""
    kind = type(optimizer)
    if optimizer is None or not kind.__module__.startswith("torch.optim"):
        return {}
    found: dict[int, Plan] = {}
    for group in optimizer.param_groups:
        rate = max(read_number(group, "lr"), read_number(group, "initial_lr"))
        momentum, decay = read_number(group, "momentum"), read_number(group, "weight_decay")
        plan = Plan(kind.__name__, rate, read_number(group, "eps"), momentum, decay)
        found.update({id(p): plan for p in group["params"]})
    return found


def read_number(group: Mapping[str, Any], key: str) -> float:
    """A setting of an optimizer's group; 0 if it has none, or one that is no single number.

    Adafactor's epsilon is a pair, and its rate may be None.
    """
    value = group.get(key)
    if isinstance(value, Tensor) and value.numel() != 1:
        return 0.0
    return float(value) if isinstance(value, (int, float, Tensor)) else 0.0


def read_decay(p: Tensor, gradient_log: float, plan: Plan | None) -> ParameterFacts:
    """How hard weight decay pulls at a parameter, and the loss, in one unit; nothing for a usual decay."""
    if plan is None or plan.decay < UNUSUAL or not math.isfinite(gradient_log) or not p.requires_grad:
        return {}
    push = (
        math.sqrt(p.numel()) if plan.kind == "AdamW" else math.exp(gradient_log)
    )  # its steps are of size one
    return {"decay": plan.decay * float(p.detach().double().norm()), "push": push}


def read_step(p: Tensor, gradient: Tensor | None, gradient_log: float, plan: Plan | None) -> ParameterFacts:
    """The share of a parameter that the planned step leaves as it is, and whether its epsilon is lost.

    `gradient`: at any scale; `gradient_log`: ln of its norm as the optimizer will get it.
    """
    unknown = not gradient_log < math.inf or (gradient is None and gradient_log == -math.inf)
    if plan is None or plan.rate <= 0 or unknown or not p.is_floating_point():
        return {}
    size = math.exp(gradient_log) / math.sqrt(max(1, p.numel()))  # of one element
    if plan.kind in ADAPTIVE:  # whatever the gradient is: one that vanishes has another cause
        step = plan.rate
    elif plan.kind == "SGD" and p.dtype.itemsize < FULL:
        step = plan.rate * size / max(1e-3, 1 - plan.momentum)
    else:
        return {}
    flat = p.detach().flatten()
    some = flat[:: max(1, flat.numel() // ELEMENTS)].double()
    _, exponent = torch.frexp(some)
    half = torch.ldexp(torch.full_like(some, torch.finfo(p.dtype).eps / 4), exponent)  # of the last place
    facts: ParameterFacts = {
        "planned": step,
        "step_lost": float(((step < half) & (some != 0)).double().mean()),
    }
    least = torch.finfo(p.dtype).smallest_normal * torch.finfo(p.dtype).eps / 2
    share = SQUARES.get(plan.kind)
    if share is not None and plan.eps < least and share * _find_least(gradient, size) ** 2 < least:
        facts["epsilon_lost"] = True
    return facts


def _find_least(gradient: Tensor | None, size: float) -> float:
    """The smallest element of a gradient whose usual element has this size."""
    if gradient is None or gradient.is_sparse or not gradient.numel():
        return size
    elements = gradient.detach().abs().double()
    usual = float(elements.square().mean().sqrt())
    return size * float(elements.min()) / usual if usual > 0 else 0.0
