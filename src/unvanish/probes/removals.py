"""A cause removed on a copy: no cut, unit gain, unit slope, calm layers, standard data, steady recurrence.

Notable: only what the finding blames is changed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unvanish.core import depth, limits
from unvanish.core.diagnosis import Finding
from unvanish.core.facts import SiteFacts
from unvanish.core.trace import Trace
from unvanish.probes import operations
from unvanish.probes.layers import name_parameters
from unvanish.probes.lines import find_line
from unvanish.probes.readings import is_parametrized


@dataclass(frozen=True)
class Trial:
    """A changed copy and batch, the mode to run it in, and the change in words."""

    model: nn.Module
    batch: Any
    mode: AbstractContextManager[Any]
    change: str


def set_unit_gain(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    """Weights on the depth axis scaled to a backward gain of one; pinched ones to the others' median."""
    reading = depth.read(trace)
    if reading is None:
        return None
    own = {e.site: e.shares["weights"] for e in reading.entries if "weights" in e.shares}
    middle = float(np.median(list(own.values()))) if own else 0.0
    changed = 0
    for site in own if not reading.pinched else reading.culprits:
        wanted = middle if reading.pinched else -_slope_below(trace, reading, site)
        if name := trace.sites[site].facts.get("weight"):
            _scale(model, name, wanted - own[site])
            changed += 1
    what = (
        "the pinched weights scaled to the others' size"
        if reading.pinched
        else "the weights scaled to a gain of one"
    )
    return Trial(model, batch, nullcontext(), f"on a copy with {what}") if changed else None


@torch.no_grad()
def _scale(model: nn.Module, name: str, log: float) -> None:
    """Multiply a weight by exp(log), also one that its module computes."""
    home, _, leaf = name.rpartition(".")
    module = model.get_submodule(home)
    if is_parametrized(module, leaf):
        setattr(module, leaf, getattr(module, leaf) * math.exp(log))
    else:
        getattr(module, leaf).data.mul_(math.exp(log))


def _slope_below(trace: Trace, reading: depth.Depth, site: int) -> float:
    """Ln of the root mean square slope of the next activation below a layer, at least ln 0.3."""
    places = list(reading.axis.sites)
    for i in places[places.index(site) + 1 :][:3]:
        slope = trace.value(i, "slope_sq")
        if slope > 0:
            return max(0.5 * math.log(slope), math.log(0.3))
    return 0.0


def set_unit_slope(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    """The blamed activations replaced by the identity, or by a ReLU if the weights make up for one."""
    reading = depth.read(trace)
    if reading is None:
        return None
    kinds = {trace.sites[i].kind for i in reading.culprits} & operations.ACTIVATIONS
    half = reading.weights > 0.5 * limits.RELU * reading.steps
    other = "a ReLU" if half else "the identity"
    change = f"on a copy with {', '.join(sorted(kinds))} replaced by {other}"
    return Trial(model, batch, Replacement(kinds, relu=half), change) if kinds else None


class Replacement(TorchFunctionMode):
    """Activations of some kinds return their input, or the positive part of it."""

    def __init__(self, kinds: set[str], relu: bool = False) -> None:
        super().__init__()
        self.kinds, self.relu = kinds, relu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operations.plain_name(getattr(func, "__name__", "")) in self.kinds and isinstance(args[0], Tensor):
            return args[0].clamp_min(0) if self.relu else args[0] * 1.0
        return func(*args, **(kwargs or {}))


class RescaledNorm(TorchFunctionMode):
    """Batch normalisation divides the whole layer by one constant, its root mean square."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operations.plain_name(getattr(func, "__name__", "")) == "batch_norm":
            x = args[0]
            return x / (x.detach().square().mean() + 1e-12).sqrt()
        return func(*args, **(kwargs or {}))


PASSED_ON = ("__torch_function__", "_attribute")  # of the watched forward: it passes the user's calls on


class Uncut(TorchFunctionMode):
    """Detaches in some lines return the tensor itself; `recording`: what runs under no_grad is recorded."""

    def __init__(self, lines: set[str], recording: bool) -> None:
        super().__init__()
        self.lines, self.recording = lines, recording

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if sys._getframe(1).f_code.co_name not in PASSED_ON:  # a reading of the examination's own
            return func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        name = getattr(func.__self__, "__name__", "") if name == "__get__" else name
        if name in ("detach", "data") and find_line() in self.lines:
            return args[0]
        if self.recording and name != "_set_grad_enabled" and not torch.is_grad_enabled():
            with torch.enable_grad():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def leave_uncut(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    """The cuts that are named are not made; None for those of other kinds."""
    lines = {str(e.value) for e in finding.evidence if e.name == "its line"}
    named = [c for c in trace.facts.get("graph_cuts", []) if c["line"] in lines and c["frees"]]
    hows = {c["how"] for c in named}
    if not hows or not hows <= {"detach", "data", "no_grad"}:
        return None
    recording = not hows.isdisjoint({"no_grad"})
    words = "none of it under no_grad" if recording else "the tensor itself in place of its copy"
    return Trial(model, batch, Uncut(lines, recording), f"on a copy with {words}")


def leave_out_centring(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    """Batch normalisation rescales whole layers only."""
    return Trial(
        model, batch, RescaledNorm(), "on a copy that rescales whole layers in place of normalising units"
    )


def calm_layers(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    """The layers below the blamed activations get weights of variance 1 / fan-in, and no bias."""
    axis = trace.depth()
    blamed = set(finding.sites)
    if axis is None:
        return None
    named, changed = name_parameters(model), 0
    generator = torch.Generator().manual_seed(0)
    for place, i in enumerate(axis.sites):
        if trace.sites[i].label not in blamed:
            continue
        for j in axis.sites[place + 1 : place + 4]:
            names = trace.sites[j].facts.get("parameters", ())
            if trace.sites[j].family == "layer" and names:
                changed += _calm(named, names, trace.sites[j].facts, generator)
                break
    return (
        Trial(model, batch, nullcontext(), "on a copy with the layers before them drawn again, without bias")
        if changed
        else None
    )


def _calm(
    named: Mapping[str, Tensor], names: tuple[str, ...], facts: SiteFacts, generator: torch.Generator
) -> int:
    """Draw the weights of one layer; how many there are."""
    count = 0
    for name in names:
        p = named.get(name)
        if p is not None and p.ndim > 1:
            std = math.sqrt(1 / max(1, facts.get("fan_in", p.shape[1])))
            p.data.copy_(torch.randn(p.shape, generator=generator) * std)
            count += 1
        elif p is not None:
            p.data.zero_()
    return count


def standardise_batch(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    """The input at mean 0 and standard deviation 1, for each channel of images."""
    x, *rest = batch if isinstance(batch, (tuple, list)) and len(batch) == 2 else (batch,)
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return None
    over = tuple(d for d in range(x.ndim) if d != 1) if x.ndim == 4 else tuple(range(x.ndim))
    wide = x.double()
    x = ((wide - wide.mean(over, keepdim=True)) / wide.std(over, keepdim=True).clamp_min(1e-12)).to(x.dtype)
    return Trial(model, (x, *rest) if rest else x, nullcontext(), "on the same batch, standardised")


def steady_recurrence(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    """Orthogonal recurrent weights; in gated cells, gates that stay open for all steps."""
    steps = max((s.facts["steps"] for s in trace.sites if s.role == "step"), default=0)
    changed = 0
    for module in model.modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            changed += 1
            for name, p in module.named_parameters():
                if name.startswith("weight_hh"):
                    relu = getattr(module, "nonlinearity", "tanh") == "relu"
                    _orthogonal_blocks(p, module.hidden_size, identity=relu)
                elif name.startswith("bias") and isinstance(
                    module, (nn.LSTM, nn.LSTMCell, nn.GRU, nn.GRUCell)
                ):
                    _open_gates(p, module, name, steps)
    return (
        Trial(model, batch, nullcontext(), "on a copy with an orthogonal recurrence and open gates")
        if changed
        else None
    )


def _orthogonal_blocks(p: Tensor, size: int, identity: bool) -> None:
    """Each gate's matrix orthogonal; the identity for a ReLU, which halves what any other rotation keeps."""
    generator = torch.Generator().manual_seed(0)
    for block in torch.split(p.data, size):
        drawn = torch.randn(max(block.shape), max(block.shape), generator=generator)
        q = torch.eye(max(block.shape)) if identity else torch.linalg.qr(drawn).Q
        block.copy_(q[: block.shape[0], : block.shape[1]])


def _open_gates(p: Tensor, module: Any, name: str, steps: int) -> None:
    """Chrono biases (Tallec and Ollivier 2018)."""
    h, gated = module.hidden_size, isinstance(module, (nn.LSTM, nn.LSTMCell))
    p.data.zero_()
    if "_ih" in name:
        p.data[h : 2 * h] = math.log(max(2, steps))
        if gated:
            p.data[:h] = -math.log(max(2, steps))
