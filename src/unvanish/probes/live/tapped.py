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
from unvanish.probes.live.compiled import is_compiled, is_compiler_strict

MOST = 48  # taps; each is a call in every forward and every backward
TRIED = (2, 13)  # the first torch that this was tried with
KNOWN = ("eager", "aot_eager", "inductor")  # backends
FUSING = ("inductor",)  # that keep more digits between operations than memory would
ASK = "they are looked at only if it is asked for, by `watch(..., compiled=True)`"
LAYERS = (nn.Linear, nn.Bilinear, _ConvNd)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# in evaluation these choose a fused path, unless a hook hangs on a module of theirs
FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
_FUNCTIONS = {name.replace("_", ""): name for name in operations.ACTIVATIONS}


@dataclass(frozen=True)
class Compiler:
    """What compiles a module: the name of its backend, empty if not known; whether it must be one graph."""

    backend: str
    fullgraph: bool


@dataclass(frozen=True)
class Tapped:
    """A module with a tap."""

    module: nn.Module
    key: Key
    family: str
    device: torch.device


def find_compilers(model: nn.Module) -> set[Compiler]:
    """By what a model, or its parts, are compiled."""
    return {_read_compiler(m) for m in model.modules() if is_compiled(m)}


def _read_compiler(module: Any) -> Compiler:
    """What compiles a module, as `torch.compile` was told."""
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
        name = str(backend.compiler_name) if work.__module__.split(".")[0] == "torch" else ""
        return Compiler(name, bool(context.fullgraph))
    except Exception:
        return Compiler("", False)


def is_whole(model: nn.Module) -> bool:
    """Whether a model is compiled as a whole, not in parts."""
    while True:
        if is_compiled(model):
            return True
        if not isinstance(model, WRAPPERS):
            return False
        model = model.module


def find_refusal(model: nn.Module, compilers: set[Compiler], asked: bool) -> str:
    """Why nothing may be put into graphs that these make of a model; empty if it may. `asked` for or not."""
    if any(isinstance(m, nn.RNNBase) for m in model.modules()):
        return "recurrent layers are not compiled"
    if not {c.backend for c in compilers} <= {*KNOWN}:
        return "its backend is not known to bear it"
    in_pieces = not all(c.fullgraph for c in compilers)
    if not asked and in_pieces:  # where a graph breaks, torch compiles hooked layers by themselves
        return f"without `fullgraph=True` {ASK}"
    if not asked and any(p.device.type != "cpu" for p in model.parameters()):
        return f"on a device {ASK}"
    if tuple(map(int, torch.__version__.split(".")[:2])) < TRIED:
        return f"this torch is older than {TRIED[0]}.{TRIED[1]}"
    import torch._dynamo.config as config  # heavy, and loaded if the model is compiled

    if not config.skip_nnmodule_hook_guards:
        return "the compiler was told to compile again when hooks come"
    if config.compiled_autograd:
        return "its backward is compiled by itself"
    if in_pieces and (is_compiler_strict() or config.fail_on_recompile_limit_hit):
        return "the compiler was told not to compile again"
    return ""


def find_places(model: nn.Module, whole: bool, free: bool = True) -> list[Tapped]:
    """The modules that get a tap, evenly chosen if they are many; `whole`: all of it is compiled.

    `free`: not layers only, whose results lie in memory anyway.
    """
    found = [p for p in _walk(model, "", whole) if free or isinstance(p.module, LAYERS)]
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
