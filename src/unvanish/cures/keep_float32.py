"""Converts the model, or some of its modules, to float32 if half precision is not enough.

What it does

Parameters and buffers of the targets (or of the whole model) are converted to float32 in place; their inputs
are converted on the way in, and their outputs back on the way out, so the rest stays as it is.

Safety

`exact` up to rounding: the same function with more digits.

Reference: Micikevicius et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.grafts import Cast
from unvanish.surgery.names import list_names
from unvanish.surgery.precision import Float32MSE, convert, convert_tensor
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The whole model: if one operation overflows, the operations before it do so in the backward pass."""
    yield replace(remedy, targets=(), parameters={}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Convert the modules at `targets`, or the model, to float32."""
    if not targets:
        convert(surgery, torch.float32)
        return
    for path in targets:
        if not surgery.has(path):
            raise SurgeryError(
                f"keep-float32: the model has no module {path!r}; leave the targets out to convert all of it"
            )
        _, dtype = surgery.like(path)
        for name, p in list(surgery.module(path).named_parameters()) + list(
            surgery.module(path).named_buffers()
        ):
            if p.is_floating_point():
                convert_tensor(surgery, f"{path}.{name}", p, torch.float32)
        surgery.graft(path, Cast(torch.float32, dtype), "in float32 inside")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    if not remedy.targets:
        return [
            "model.float()  # half precision by torch.autocast alone",
            "loss = loss_fn(model(x.float()), y)",
        ]
    cast = "lambda m, args: tuple(a.float() if torch.is_floating_point(a) else a for a in args)"
    return [
        f"for name in {list_names(remedy.targets)}:",
        f"    model.get_submodule(name).float().register_forward_pre_hook({cast})",
        "    model.get_submodule(name).register_forward_hook(lambda m, args, out: out.to(x.dtype))",
    ]


def case() -> tuple[Case, Remedy]:
    """A float16 net."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).half()
    return Case(net, (torch.randn(8, 8).half(), torch.randn(8, 3).half()), Float32MSE()), Remedy(
        "keep-float32", (), "digits", "exact"
    )
