"""Which modules of a compiled model get a tap, and whether any may: torch's compiler must bear it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from unvanish.probes import operations
from unvanish.probes.intact import WRAPPERS
from unvanish.probes.live.chart import Key, spread
from unvanish.probes.live.compiled import is_compiled

MOST = 48  # taps; each is a call in every forward and every backward
TRIED = (2, 13)  # the first torch that this was tried with
KNOWN = ("eager", "aot_eager", "inductor")  # backends
FUSING = ("inductor",)  # that keep more digits between operations than memory would
LAYERS = (nn.Linear, nn.Bilinear, _ConvNd)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# in evaluation these choose a fused path, unless a hook hangs on a module of theirs
FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
_FUNCTIONS = {name.replace("_", ""): name for name in operations.ACTIVATIONS}


@dataclass(frozen=True)
class Tapped:
    """A module with a tap."""

    module: nn.Module
    key: Key
    family: str
    device: torch.device


def find_backends(model: nn.Module) -> set[str]:
    """The names of the backends that a model, or its parts, are compiled by; "" for one that is not known."""
    return {_name_backend(m) for m in model.modules() if is_compiled(m)}


def is_whole(model: nn.Module) -> bool:
    """Whether a model is compiled as a whole, not in parts."""
    while True:
        if is_compiled(model):
            return True
        if not isinstance(model, WRAPPERS):
            return False
        model = model.module


def _name_backend(module: Any) -> str:
    """The backend that compiles a module, as `torch.compile` was told; empty if it does not say."""
    try:
        if type(module).__name__ == "OptimizedModule":
            context = module.dynamo_ctx
        else:  # torch hides it in the function that it puts in the place of the module's call
            call = module._compiled_call_impl
            cells = dict(zip(call.__code__.co_freevars, call.__closure__, strict=True))
            context = cells["self"].cell_contents
        backend = context.callback
        while hasattr(backend, "_torchdynamo_orig_backend"):
            backend = backend._torchdynamo_orig_backend
        work = getattr(backend, "compiler_fn", backend)
        return str(backend.compiler_name) if work.__module__.split(".")[0] == "torch" else ""
    except Exception:
        return ""


def find_refusal(model: nn.Module, backends: set[str]) -> str:
    """Why nothing may be put into a model's graphs, made by these backends; empty if it may."""
    if any(isinstance(m, nn.RNNBase) for m in model.modules()):
        return "recurrent layers are not compiled"
    if not backends <= {*KNOWN}:
        return "its backend is not known to bear it"
    if tuple(map(int, torch.__version__.split(".")[:2])) < TRIED:
        return f"this torch is older than {TRIED[0]}.{TRIED[1]}"
    import torch._dynamo.config as config  # heavy, and loaded if the model is compiled

    if not config.skip_nnmodule_hook_guards:
        return "the compiler was told to compile again when hooks come"
    if config.compiled_autograd:
        return "its backward is compiled by itself"
    return ""


def find_places(model: nn.Module, whole: bool) -> list[Tapped]:
    """The modules that get a tap, evenly chosen if they are many; `whole`: all of it is compiled."""
    found = list(_walk(model, "", whole))
    return [found[i] for i in spread(len(found), MOST)]


def _walk(module: nn.Module, path: str, inside: bool) -> Iterator[Tapped]:
    """Layers, normalisations, activations and the items of lists, which come first to last."""
    if isinstance(module, FUSED):
        return
    listed = isinstance(module, (nn.ModuleList, nn.Sequential))
    for name, child in module.named_children():
        own = f"{path}.{name}" if path else name
        within = inside or is_compiled(child)
        yield from _walk(child, own, within)
        if within and not (child._forward_hooks or is_compiled(child) or isinstance(child, FUSED)):
            place = _judge(child, own, listed)
            if place is not None:
                yield place


def _judge(module: nn.Module, path: str, listed: bool) -> Tapped | None:
    kind = type(module).__name__
    function = _FUNCTIONS.get(kind.lower())
    parameter = next(module.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    if isinstance(module, LAYERS):
        return Tapped(module, (path, kind, 0), "module", device)
    if function and type(module).__module__.startswith("torch.nn"):
        return Tapped(module, (path, function, 0), "activation", device)
    if isinstance(module, NORMS) or (listed and parameter is not None and next(module.children(), None)):
        return Tapped(module, (path, kind, 0), "module", device)
    return None
