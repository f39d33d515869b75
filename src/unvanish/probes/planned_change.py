"""The step that an optimizer would take, by stepping a copy of it on copies of its parameters.

Notable: hooks are not copied, nor what a scheduler put in place of `step`; torch's hooks on all optimizers
are passed by. So nobody hears of the step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unvanish.probes.critical import StepTaken
from unvanish.probes.errors import CheckError
from unvanish.probes.planned import read_number

FULL = 4  # bytes of a number: a change is kept in float32 at least


def plan_step(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], optimizer: Any, rate: float | None
) -> StepTaken:
    """The step from gradients: the optimizer's own, from its state; without one, the gradient times the rate.

    `rate`: in place of the optimizer's; groups keep their proportions. CheckError if it cannot step.
    """
    copies = [p.detach().clone().requires_grad_(p.requires_grad) for p in parameters]
    for twin, gradient in zip(copies, gradients, strict=True):
        twin.grad = None if gradient is None else gradient.detach().clone()
    if optimizer is None:
        if rate is None:
            raise CheckError("a step needs a learning rate: give lr= or optimizer=")
        used = rate
        with torch.no_grad():
            for twin in copies:
                if twin.grad is not None:
                    twin -= rate * twin.grad
    else:
        used = _step_copy(optimizer, dict(zip(map(id, parameters), copies, strict=True)), rate)
    change = [_subtract(now, was) for now, was in zip(copies, parameters, strict=True)]
    return StepTaken(parameters, [p.detach().clone() for p in parameters], change, used)


@torch.no_grad()
def _subtract(now: Tensor, was: Tensor) -> Tensor:
    wide = torch.float32 if now.dtype.itemsize < FULL else now.dtype
    return now.detach().to(wide) - was.detach().to(wide)


def _step_copy(optimizer: Any, twins: Mapping[int, Tensor], rate: float | None) -> float:
    """Step a copy of an optimizer that holds the copies; the learning rate of its first group."""
    try:
        twin = _copy_optimizer(optimizer, twins)
        used = _set_rate(twin, rate)
        with torch.no_grad():
            _own_step(twin)(twin)
    except CheckError:
        raise
    except Exception as error:
        raise CheckError(
            f"a copy of the {type(optimizer).__name__} cannot step ({type(error).__name__}: {error})"
        ) from error
    return used


def _copy_optimizer(optimizer: Any, twins: Mapping[int, Tensor]) -> Any:
    """A copy that holds the copies in place of the parameters, and all else by itself."""
    known: dict[int, Any] = dict(twins)
    twin = copy.deepcopy(optimizer, known)
    for name, value in vars(optimizer).items():  # of classes whose copies leave something out
        if name not in vars(twin) and not callable(value):
            setattr(twin, name, copy.deepcopy(value, known))
    return twin


def _set_rate(optimizer: Any, rate: float | None) -> float:
    first = read_number(optimizer.param_groups[0], "lr")
    if rate is None:
        return first
    for group in optimizer.param_groups:
        wanted = rate * read_number(group, "lr") / first if first else rate
        group["lr"] = torch.full_like(group["lr"], wanted) if isinstance(group["lr"], Tensor) else wanted
    return rate


def _own_step(optimizer: Any) -> Callable[[Any], Any]:
    """The class's `step`, without what torch wraps around it to call hooks."""
    step: Any = type(optimizer).step
    own: Callable[[Any], Any] = step.__wrapped__ if getattr(step, "hooked", False) else step
    return own
