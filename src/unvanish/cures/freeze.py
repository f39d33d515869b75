"""Freezes parameters that are not meant to learn: requires_grad off.

Safety

Exact: the function stays the same. An optimizer skips them, and their gradients take no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.names import each_parameter
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The parameters among the targets; every one without a gradient if the finding names very many."""
    names = {trace.sites[i].path: trace.sites[i].facts for i in trace.where("parameter")}
    wanted = [t for t in remedy.targets if t in names]
    if len(wanted) >= 12:
        wanted += [n for n, f in names.items() if f.get("trainable") and not f.get("reachable")]
    if wanted:
        yield replace(remedy, targets=tuple(dict.fromkeys(wanted)), parameters={}, safety="exact")


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Freeze the parameters named by `targets`."""
    for name in targets:
        p = surgery.parameter(name)
        before = p.requires_grad
        p.requires_grad_(False)
        surgery.note(name, "frozen", _back(p, before))


def _back(p: Tensor, flag: bool) -> Callable[[], None]:
    def undo() -> None:
        p.requires_grad_(flag)

    return undo


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return each_parameter(remedy.targets, "{}.requires_grad_(False)")


def case() -> tuple[Case, Remedy]:
    """A small net."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    return Case(net, (torch.randn(8, 8), torch.randint(0, 3, (8,))), nn.CrossEntropyLoss()), Remedy(
        "freeze", ("0.weight",), "on purpose", "exact"
    )
