"""Caps logits softly, cap * tanh(z / cap), before a softmax or at the output layer.

What it does

No logit can exceed `cap`; up to about half of it little changes. At a softmax called in a module's forward,
masked entries (-inf) stay masked; at a module, its output is capped.

Safety

It changes the function: for untrained models, or with training after it.

Reference: Gemma Team 2024.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.anatomy import Anatomy
from unvanish.surgery.grafts import Then
from unvanish.surgery.names import list_names, shorten, split_calls, split_label
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


class Cap(nn.Module):
    """cap * tanh(z / cap); infinities pass."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap

    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z.isinf(), z, self.cap * torch.tanh(z / self.cap))


class Capped:
    """Caps what a softmax reads."""

    def __init__(self, cap: float) -> None:
        self.cap = Cap(cap)

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return func(self.cap(args[0]), *args[1:], **kwargs)


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The softmaxes and layers among the targets."""
    anatomy = Anatomy(trace)
    wanted = [
        s.label
        for i in anatomy.nodes
        if (s := anatomy.site(i)).label in remedy.targets and s.kind == "softmax"
    ]
    wanted += [x.module for x in anatomy.layers if x.label in remedy.targets]
    if wanted:
        yield replace(remedy, targets=tuple(wanted), safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...], *, cap: float = 30.0) -> None:
    """Cap the outputs of modules, or the inputs of "module.softmax", at `targets`."""
    for target in targets:
        path, _ = split_label(target)
        if surgery.has(path):
            surgery.graft(path, Then(Cap(cap)), f"capped at {cap:g}")
        else:
            surgery.graft(
                path.rpartition(".")[0],
                Rewire({"softmax": Capped(cap)}, own=True),
                f"softmax capped at {cap:g}",
            )


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    cap = remedy.parameters.get("cap", 30.0)
    modules, calls = split_calls(remedy.targets, {"softmax"})
    lines = [
        f"for name in {list_names(modules)}:",
        "    model.get_submodule(name).register_forward_hook("
        f"lambda m, args, out: {cap:g} * torch.tanh(out / {cap:g}))",
    ]
    told = [f"# before {shorten(tuple(calls))}: logits = {cap:g} * torch.tanh(logits / {cap:g})"]
    return [*(lines if modules else []), *(told if calls else [])]


def case() -> tuple[Case, Remedy]:
    """A classifier with huge logits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        net.get_parameter("2.weight").mul_(1000)
    return Case(net, (torch.randn(8, 8), torch.randint(0, 3, (8,))), nn.CrossEntropyLoss()), Remedy(
        "soft-cap", ("2",), "bounded"
    )
