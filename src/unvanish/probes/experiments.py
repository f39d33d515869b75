"""Experiments on a copy: remove the cause, measure again, and see whether the flow is restored.

Notable:
- An experiment changes only what the finding blames: the weights' scale, the slope of the activations, the
  input's scale, the recurrence, the precision. The user's model is never touched.
- Only the first finding is put to the test: it is the one the report calls the cause.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unvanish.core import depth, ledger, limits
from unvanish.core.diagnosis import Finding
from unvanish.core.facts import SiteFacts
from unvanish.core.trace import Trace
from unvanish.probes import operations
from unvanish.probes.forward import parametrized
from unvanish.probes.intact import unwrap
from unvanish.probes.record import record


@dataclass(frozen=True)
class Trial:
    """A changed copy and batch, under a mode, and what was changed in words."""

    model: nn.Module
    batch: Any
    mode: AbstractContextManager[Any]
    change: str


Change = Callable[[nn.Module, Any, Trace, Finding], Trial | None]
Judge = Callable[[Trace, Trace, Finding], tuple[bool, str] | None]


def confirm_cause(
    findings: tuple[Finding, ...], trace: Trace, model: nn.Module, batch: Any, loss: Any
) -> tuple[Finding, ...]:
    """The findings, the first one marked confirmed or not where there is an experiment for its code."""
    head = findings[0]
    if head.severity == "note":
        return findings
    if head.code in ("PRC001", "PRC002"):
        said = "run again in float32, the gradients are finite and none is flushed"
        return (replace(head, confirmed=True, experiment=said), *findings[1:])
    if head.code not in EXPERIMENTS:
        return findings
    change, judge = EXPERIMENTS[head.code]
    try:
        trial = change(copy.deepcopy(unwrap(model)), batch, trace, head)
        if trial is None:
            return findings
        with trial.mode:
            after = record(trial.model, trial.batch, loss)
        verdict = judge(trace, after, head)
    except Exception:  # a model that cannot be copied, or does not run when changed, confirms nothing
        return findings
    if verdict is None:
        return findings
    return (replace(head, confirmed=verdict[0], experiment=f"{trial.change}: {verdict[1]}"), *findings[1:])


# -- changes


def _unit_gain(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
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
    if parametrized(module, leaf):
        setattr(module, leaf, getattr(module, leaf) * math.exp(log))
    else:
        getattr(module, leaf).data.mul_(math.exp(log))


def _slope_below(trace: Trace, reading: depth.Depth, site: int) -> float:
    """Ln of the root mean square slope of the activation next below a layer, at least ln 0.3."""
    places = list(reading.axis.sites)
    for i in places[places.index(site) + 1 :][:3]:
        slope = trace.value(i, "slope_sq")
        if slope > 0:
            return max(0.5 * math.log(slope), math.log(0.3))
    return 0.0


def _unit_slope(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    """The blamed activations pass the gradient on: all of it, or half, as the weights are drawn for."""
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


class Uncentred(TorchFunctionMode):
    """Batch normalisation divides the whole layer by one constant, its root mean square."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operations.plain_name(getattr(func, "__name__", "")) == "batch_norm":
            x = args[0]
            return x / (x.detach().square().mean() + 1e-12).sqrt()
        return func(*args, **(kwargs or {}))


def _without_centring(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    return Trial(
        model, batch, Uncentred(), "on a copy that rescales whole layers in place of normalising units"
    )


def _calm_layers(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    """Layers below the blamed activations: He-sized weights in place of theirs, no bias."""
    axis = trace.depth()
    blamed = set(finding.sites)
    if axis is None:
        return None
    named, changed = dict(model.named_parameters()), 0
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
        Trial(model, batch, nullcontext(), "on a copy with the layers before them drawn anew, without bias")
        if changed
        else None
    )


def _calm(
    named: Mapping[str, Tensor], names: tuple[str, ...], facts: SiteFacts, generator: torch.Generator
) -> int:
    count = 0
    for name in names:
        p = named.get(name)
        if p is not None and p.ndim > 1:
            drawn = torch.randn(p.shape, generator=generator) * math.sqrt(
                1 / max(1, facts.get("fan_in", p.shape[1]))
            )
            p.data.copy_(drawn)
            count += 1
        elif p is not None:
            p.data.zero_()
    return count


def _standardise(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    x, *rest = batch if isinstance(batch, (tuple, list)) and len(batch) == 2 else (batch,)
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return None
    over = tuple(d for d in range(x.ndim) if d != 1) if x.ndim == 4 else tuple(range(x.ndim))
    wide = x.double()
    x = ((wide - wide.mean(over, keepdim=True)) / wide.std(over, keepdim=True).clamp_min(1e-12)).to(x.dtype)
    return Trial(model, (x, *rest) if rest else x, nullcontext(), "on the same batch, standardised")


def _steady_recurrence(model: nn.Module, batch: Any, trace: Trace, finding: Finding) -> Trial | None:
    """Orthogonal recurrent weights, and in gated cells gates that stay open for all the steps."""
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


# -- judges


def _judge_flow(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    old, new = depth.read(before), depth.read(after)
    if old is None or new is None or not math.isfinite(new.ratio):
        return None
    there = new.endpoint if old.pinched else new.log_ratio
    said = f"{_decades(old.ratio)} decades become {_decades(there)}"
    return abs(there) <= max(new.limit, 0.5 * abs(old.ratio)), said


def _decades(nats: float) -> str:
    return f"{nats / ledger.DECADE:+.1f}"


def _judge_saturation(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    return _share(before, after, finding, "saturated", "saturated units")


def _judge_dead_units(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    return _share(before, after, finding, "dead", "dead units")


def _share(
    before: Trace, after: Trace, finding: Finding, statistic: str, words: str
) -> tuple[bool, str] | None:
    old, new = (
        [
            t.value(i, statistic)
            for i, s in enumerate(t.sites)
            if s.role == "node" and s.label in finding.sites
        ]
        for t in (before, after)
    )
    old, new = [x for x in old if math.isfinite(x)], [x for x in new if math.isfinite(x)]
    if not old or not new:
        return None
    return max(new) < 0.5 * max(old), f"{words} {max(old):.0%} become {max(new):.0%}"


def _judge_calm(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    """The first layer's output is back to ordinary size, or its units are no longer saturated."""
    found = _share(before, after, finding, "saturated", "saturated units")
    if found is not None and found[0]:
        return found
    old, new = (_first_size(t) for t in (before, after))
    if not (math.isfinite(old) and math.isfinite(new)):
        return None
    return new < 0.5 * old or new < 10, f"the first layer's output of size {old:.3g} becomes {new:.3g}"


def _first_size(trace: Trace) -> float:
    layers = [i for i, s in enumerate(trace.sites) if s.family in ("layer", "recurrent")]
    return trace.value(min(layers, key=lambda i: trace.sites[i].order), "forward_rms") if layers else math.nan


def _judge_memory(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    old, new = _through_time(before), _through_time(after)
    if not old or not new:
        return None
    a, b = max(old, key=abs), max(new, key=abs)
    return abs(b) <= max(3.0, 0.5 * abs(a)), f"{_decades(a)} decades over the steps become {_decades(b)}"


def _through_time(trace: Trace) -> list[float]:
    """Ln ||dL/dh|| at the first step over that at the last, by Theil-Sen, for each recurrence."""
    groups: dict[str, list[float]] = {}
    for i, site in enumerate(trace.sites):
        if site.role == "step":
            groups.setdefault(site.facts["of"], []).append(trace.value(i, "state_log"))
    finite = [[x for x in reversed(logs) if math.isfinite(x)] for logs in groups.values()]
    return [depth.theil_sen(logs) * (len(logs) - 1) for logs in finite if len(logs) > 2]


EXPERIMENTS: dict[str, tuple[Change, Judge]] = {
    "INI001": (_unit_gain, _judge_flow),
    "INI002": (_unit_gain, _judge_flow),
    "ACT002": (_unit_slope, _judge_flow),
    "NRM001": (_without_centring, _judge_flow),
    "ACT001": (_calm_layers, _judge_saturation),
    "ACT003": (_calm_layers, _judge_dead_units),
    "INP001": (_standardise, _judge_calm),
    "REC001": (_steady_recurrence, _judge_memory),
    "REC002": (_steady_recurrence, _judge_memory),
}
