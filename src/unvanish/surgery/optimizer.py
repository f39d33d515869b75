"""Keeps an optimizer in step with a changed model: new parameters are added, removed ones dropped."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from unvanish.surgery.receipt import Change


def update_optimizer(optimizer: Optimizer, before: Sequence[Tensor], now: Sequence[Tensor]) -> Change | None:
    """Add the parameters that are new to the optimizer's largest group, remove those that are gone.

    `before`, `now`: the model's parameters then and now. Returns the change, None if there is none.
    """
    gone = _missing(before, now)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    new = [p for p in _missing(now, [*before, *held]) if p.requires_grad]
    if not gone and not new:
        return None
    kept = [group["params"] for group in optimizer.param_groups]  # the lists themselves
    states = {p: optimizer.state[p] for p in gone if p in optimizer.state}
    for group in optimizer.param_groups:
        group["params"] = _missing(group["params"], gone)
    for p in states:
        del optimizer.state[p]
    largest = max(optimizer.param_groups, key=lambda group: len(group["params"]))
    largest["params"] = [*largest["params"], *new]

    def undo() -> None:
        for group, params in zip(optimizer.param_groups, kept, strict=True):
            group["params"] = params
        for p in new:
            optimizer.state.pop(p, None)
        optimizer.state.update(states)

    return Change("optimizer", f"{len(new)} parameters added, {len(gone)} removed", undo)


def _missing(some: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Those of `some` that are not among `others`, by identity."""
    known = {id(p) for p in others}
    return [p for p in some if id(p) not in known]
