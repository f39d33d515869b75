"""Models that cannot be changed here, each with the reason and the way out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from unvanish.surgery.receipt import SurgeryError


def refuse(model: Any) -> None:
    """Raise SurgeryError for a model that cannot be changed, with the reason and the way out."""
    if not isinstance(model, nn.Module):
        raise SurgeryError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module; pass the module itself"
        )
    for module in model.modules():
        why = _refusal(module)
        if why:
            raise SurgeryError(f"{'the model is' if module is model else 'the model holds'} {why}")
    for name, p in model.named_parameters():
        if is_lazy(p):
            raise SurgeryError(
                f"the parameter {name} has no shape yet; run {type(model).__name__} once on a batch first"
            )
        if p.is_meta:
            raise SurgeryError(
                f"the parameter {name} is on the meta device and has no values; materialise it first"
            )


def _refusal(module: nn.Module) -> str:
    """Why a module cannot be changed, as the end of a sentence; "" if it can."""
    kind = type(module).__name__
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return (
            f"wrapped in {kind}, which keeps its own list of parameters; cure the module inside (`.module`) "
            f"and wrap it afterwards"
        )
    if kind == "OptimizedModule":
        return "compiled, and compiled code would not see the change; cure the module before torch.compile"
    if isinstance(module, torch.jit.ScriptModule):
        return "a ScriptModule, whose code is fixed; cure the module it was made from"
    sharded = any("FSDPModule" in c.__name__ for c in type(module).__mro__)
    if sharded or "FullyShardedDataParallel" in kind:
        return "sharded by FSDP; cure the module before it is sharded"
    return ""
