"""Trials: a short training of two models from equal seeds, on which a proof rests.

Notable: the batch is the same one at every step, and nothing leaves a trace in the process: the random
generators are put back.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unvanish.core.cured import Outcome
from unvanish.probes import calls

RATES = (1e-3, 1e-2)  # of Adam: each model is trained at both, and its better one counts
NUDGE = 1e-3  # of each weight, between two trials of a proof: it decides what chance decides
CLOSE = 0.1  # of the first loss: smaller differences are chance
BARELY = 0.02  # of the first loss: a treatment that falls behind by more is tried again
FEW, MANY = 2, 5  # trials of a proof: at least, and at most if chance may decide
FUSED = ("cpu", "cuda")  # where Adam's step is one kernel, about five times as fast for many small tensors


@dataclass(frozen=True)
class PairedTrial:
    """The losses of both sides; `comparable` is False if they are of different loss functions."""

    untreated: tuple[float, ...]
    treated: tuple[float, ...]
    comparable: bool

    @property
    def lag(self) -> float:
        """How far the treated side is behind, by `measure_lag`."""
        return measure_lag(self.untreated, self.treated, self.comparable)


def train_copy(
    model: nn.Module,
    batch: Any,
    loss: Any,
    optimizer: Any = None,
    steps: int = 60,
    seed: int = 0,
    seconds: float = 30.0,
) -> tuple[float, ...]:
    """The loss before each of `steps` steps, and after the last, at the better one of two learning rates.

    Copies are trained by Adam, whose steps do not depend on the scale of the loss, over the parameters that
    `optimizer` holds (all without one). After `seconds` (on a CPU: of this thread's own time) a training
    stops early, but not before 5 steps. The losses end with the first that is not finite. With a seed other
    than 0 every weight starts a thousandth away, so that what chance alone decides comes out differently.
    """
    runs = []
    for rate in RATES:
        net, held = copy.deepcopy((model, optimizer))
        if seed:
            _nudge(net, seed)
        runs.append(_run(net, batch, loss, _adam(net, held, rate), steps, seed, seconds / len(RATES)))
    return min(
        runs,
        key=lambda losses: (not _finite(losses), _reached_loss(losses) if _finite(losses) else -len(losses)),
    )


@torch.no_grad()
def _nudge(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.is_floating_point() and not p.is_sparse:
            noise = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
            p.mul_(1 + NUDGE * noise)


def _run(
    model: nn.Module, batch: Any, loss: Any, held: Any, steps: int, seed: int, seconds: float
) -> tuple[float, ...]:
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    losses: list[float] = []
    clock = time.perf_counter if devices else time.thread_time  # other programs must not shorten a training
    started = clock()
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        for step in range(steps + 1):
            held.zero_grad(set_to_none=True)
            try:
                value = _loss(model, batch, loss)
            except (RuntimeError, ValueError):
                break
            losses.append(float(value.detach()))
            if not math.isfinite(losses[-1]) or step == steps:
                break
            if not value.requires_grad or (step >= 5 and clock() - started > seconds):
                break
            value.backward()  # type: ignore[no-untyped-call]
            held.step()
    return tuple(losses)


def _adam(model: nn.Module, optimizer: Any, rate: float) -> torch.optim.Optimizer:
    held = None if optimizer is None else {id(p) for group in optimizer.param_groups for p in group["params"]}
    wanted = [p for p in model.parameters() if p.requires_grad and (held is None or id(p) in held)]
    sparse = any(getattr(m, "sparse", False) for m in model.modules())
    fused = all(p.is_floating_point() and p.device.type in FUSED for p in wanted)
    group = [{"params": wanted}]  # it may be empty: an optimizer made of another model's parameters
    made = torch.optim.SGD(group, 10 * rate) if sparse else torch.optim.Adam(group, rate, fused=fused)
    for name, hook in (optimizer._optimizer_step_pre_hooks if optimizer is not None else {}).items():
        made._optimizer_step_pre_hooks[name] = (
            hook  # a clipper is part of the treatment; torch lists no hooks
        )
    return made


def _loss(model: nn.Module, batch: Any, loss: Any) -> torch.Tensor:
    call = calls.prepare(batch, loss, gradients=False)
    return call.objective(model(*call.args, **call.kwargs))


def measure_lag(before: tuple[float, ...], after: tuple[float, ...], comparable: bool = True) -> float:
    """How far the treated side is behind in the loss reached at the same step, in units of the first loss.

    Negative if it is ahead; inf if it alone breaks, -inf if only the other does. The unit is the smaller
    first loss. If the losses are different functions (`comparable` False), each is divided by
    its own first loss.
    """
    steps = min(len(before), len(after))
    if not _finite(after):
        return math.inf if len(after) < len(before) or _finite(before) else 0.0
    if not _finite(before):
        return -math.inf
    if steps < 2:
        return 0.0
    old, new = _reached_loss(before[:steps]), _reached_loss(after[:steps])
    first, other = max(abs(before[0]), 1e-300), max(abs(after[0]), 1e-300)
    return (new - old) / min(first, other) if comparable else new / other - old / first


def judge_trials(trials: Sequence[float]) -> Outcome:
    """The verdict of trials: worse if one of the first two is, or the median of more at a tighter limit."""
    middle = statistics.median(trials)
    if max(trials[:FEW]) > CLOSE or (len(trials) > FEW and middle > CLOSE / 2):
        return "worse"
    return "better" if middle < -CLOSE else "no effect"


def needs_more_trials(trials: Sequence[float]) -> bool:
    """Whether there are too few trials, or the treated side fell behind in one, perhaps by chance."""
    if max(trials, default=0.0) > CLOSE and len(trials) <= FEW:
        return False
    return len(trials) < FEW or (len(trials) < MANY and max(trials) > BARELY)


def _finite(losses: tuple[float, ...]) -> bool:
    return bool(losses) and math.isfinite(losses[-1])


def _reached_loss(losses: tuple[float, ...]) -> float:
    """The median of the last few losses."""
    tail = sorted(losses[-5:])
    return tail[len(tail) // 2]


def looks_trained(model: nn.Module, optimizer: Any = None) -> bool:
    """Whether a model was trained: its optimizer has a state, or its batch statistics have counted."""
    if optimizer is not None and getattr(optimizer, "state", None):
        return True
    counted = [
        m.num_batches_tracked for m in model.modules() if getattr(m, "num_batches_tracked", None) is not None
    ]
    return any(int(c) > 1 for c in counted if isinstance(c, torch.Tensor))
