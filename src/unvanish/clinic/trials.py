"""Trials: a short training of two models from equal seeds, on which a proof rests.

Notable: nothing leaves a trace in the process: the random generators are put back. The loss is read on
samples that the training does not see, if there are such. It counts where it was lowest, for a net that
learns a few samples by heart gets worse on others.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from unvanish.clinic.samples import LEAST, ProofSamples
from unvanish.core.cured import Outcome
from unvanish.probes import calls
from unvanish.probes.copies import copy_model

RATES = (1e-3, 1e-2)  # of Adam: each model is trained at both, and its better one counts
NUDGE = 1e-3  # of each weight, between two trials of a proof: it decides what chance decides
PATTERN = 0.5  # of the first loss on unseen samples: without a pattern it falls to that of a constant answer
SAME = 1e-3  # of the first loss: two trainings that differ by less at every step are one
CLOSE = 0.1  # of the first loss: smaller differences are chance
CHANCE = 0.3  # of the first loss, on unseen samples, if both sides learned the pattern: which few they are
BARELY = 0.02  # of the first loss: a treatment that falls behind by more is tried again
FEW, MANY = 2, 5  # trials of a proof: at least, and at most if chance may decide
BLIND_STEPS = 50  # of the search for the best answer that is the same for all samples
FEW_LOSSES = 5  # in a row, whose median counts
FUSED = ("cpu", "cuda")  # where Adam's step is one kernel, about five times as fast for many small tensors


@dataclass(frozen=True)
class Training:
    """The losses of one training, of its own batches and of unseen samples (empty if there are none).

    `own`: of the training by the user's own optimizer, beside which this one is the best.
    """

    seen: tuple[float, ...]
    unseen: tuple[float, ...] = ()
    own: Training | None = None

    @property
    def reached(self) -> float:
        """The loss of its own batches at the end."""
        return _reach(self.seen, False) if self.seen else math.nan

    @property
    def learns(self) -> bool:
        """Whether it learned what holds for unseen samples too, more than chance gives."""
        return _finite(self.unseen) and _reach(self.unseen, True) < PATTERN * self.unseen[0]


@dataclass(frozen=True)
class PairedTrial:
    """The trainings of both sides; `comparable` is False if they are of different loss functions.

    `endless`: the untreated loss has no least value, so that its fall is no progress.
    """

    untreated: Training
    treated: Training
    comparable: bool
    endless: bool = False

    @property
    def on_unseen(self) -> bool:
        """Whether it is judged on unseen samples: one side learned what holds for them."""
        return self.treated.learns or (self.untreated.learns and not self.endless)

    @property
    def has_rival(self) -> bool:
        """Whether the untreated side trained at all: its loss ends finite, and has a least value."""
        return not self.endless and _finite(self.untreated.seen)

    @property
    def is_equal(self) -> bool:
        """Whether both sides trained alike at every step, so that the treatment changed nothing."""
        before, after = self.untreated.seen, self.treated.seen
        if not self.comparable or len(before) != len(after) or len(before) < 2:
            return False
        near = SAME * max(abs(before[0]), 1e-300)
        return all(abs(a - b) <= near for a, b in zip(before, after, strict=True))

    @property
    def lag(self) -> float:
        """How far the treated side is behind: under the user's own optimizer, if clearly so there."""
        before, after = self.untreated.own, self.treated.own
        if before is None or after is None:
            return self._best_lag
        own = PairedTrial(before, after, self.comparable, self.endless)._best_lag
        return max(own, self._best_lag) if own > CLOSE else self._best_lag

    @property
    def _best_lag(self) -> float:
        """How far the treated side is behind, by `measure_lag`, each side in its best training.

        What falls without end, or ends in a number that is not finite, is compared as if it stood still: to
        be better than nothing is no proof. If neither side learned what holds for unseen samples, a batch
        that was learned by heart shows no side to be better, but one to be worse. If both did, the few
        samples that are unseen decide by chance who is a little behind on them: a side is behind if it is so
        on its own batch too.
        """
        before, comparable = self.untreated, self.comparable
        if not self.has_rival:
            before, comparable = _stand_still(self.treated), False
        seen = measure_lag(before.seen, self.treated.seen, comparable)
        if not self.treated.unseen or not math.isfinite(seen):
            return seen
        if not self.on_unseen:
            return max(seen, -CLOSE)
        unseen = measure_lag(before.unseen, self.treated.unseen, comparable, unseen=True)
        both = before.learns and self.treated.learns
        return min(unseen, max(seen, 0.0)) if both and 0 < unseen < CHANCE else unseen


def _stand_still(training: Training) -> Training:
    """A training as long as another one that changes nothing."""
    return Training((1.0,) * len(training.seen), (1.0,) * len(training.unseen))


def train_copy(
    model: nn.Module,
    samples: ProofSamples,
    loss: Any,
    optimizer: Any = None,
    steps: int = 60,
    seed: int = 0,
    seconds: float = 30.0,
) -> Training:
    """The loss before each of `steps` steps, and after the last, of the best of a few trainings.

    Copies are trained by Adam, whose steps do not depend on the scale of the loss, at two rates, over the
    parameters that `optimizer` holds (all without one), and by that optimizer itself, under which it must not
    break. After `seconds` (on a
    CPU: of this thread's own time) a training stops early, but not before 5 steps. The losses end with the
    first that is not finite. With a seed other than 0 every weight starts a thousandth away, so that what
    chance alone decides comes out differently.
    """
    runs = []
    ways: list[float | None] = [*RATES] if optimizer is None else [*RATES, None]
    for rate in ways:
        net, held = copy.deepcopy((model, optimizer))
        if seed:
            _nudge(net, seed)
        stepper = held if rate is None else _adam(net, held, rate)
        runs.append(_run(net, samples, loss, stepper, steps, seed, seconds / len(ways)))
    own = None if optimizer is None else runs[-1]
    if own is not None and not _finite(own.seen):
        return own  # what breaks under the optimizer it is meant for does not train
    return replace(min(runs, key=_rate_training), own=own)


def _rate_training(run: Training) -> tuple[bool, bool, float]:
    """A key by which the best training of a model comes first."""
    if not _finite(run.seen):
        return True, True, -len(run.seen)
    return False, not run.learns, _reach(run.unseen, True) if run.learns else _reach(run.seen, False)


@torch.no_grad()
def _nudge(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.is_floating_point() and not p.is_sparse:
            noise = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
            p.mul_(1 + NUDGE * noise)


def _run(
    model: nn.Module, samples: ProofSamples, loss: Any, held: Any, steps: int, seed: int, seconds: float
) -> Training:
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    seen: list[float] = []
    unseen: list[float] = []
    clock = time.perf_counter if devices else time.thread_time  # other programs must not shorten a training
    started = clock()
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        for step in range(steps + 1):
            held.zero_grad(set_to_none=True)
            try:
                judged = [_judge(model, samples.judging, loss)] if samples.unseen else []
                value = _loss(model, samples.training[step % len(samples.training)], loss)
            except (RuntimeError, ValueError):
                break
            seen.append(float(value.detach()))
            unseen += judged
            if not math.isfinite(seen[-1]) or step == steps:
                break
            if not value.requires_grad or (step >= 5 and clock() - started > seconds):
                break
            value.backward()  # type: ignore[no-untyped-call]
            held.step()
    return Training(tuple(seen), tuple(unseen))


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
    return call.objective(call.run(model))


def _judge(model: nn.Module, batch: Any, loss: Any) -> float:
    """The loss on samples that the training does not see, in the model's own mode; leaves no trace in it."""
    kept = [(b, b.clone()) for b in model.buffers()]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        value = float(_loss(model, batch, loss))
        for buffer, before in kept:
            buffer.copy_(before)
    return value


def read_blind_loss(model: nn.Module, batch: Any, loss: Any) -> float:
    """The least loss of an answer that is the same for all samples; inf if that is unknown.

    The answer has one number for each feature of the output, which is the last axis; of an image,
    the second.
    """
    try:
        call = calls.prepare(batch, loss, gradients=False)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            shown = call.run(copy_model(model))
        if loss is None or not isinstance(shown, torch.Tensor) or not shown.ndim or len(shown) < LEAST:
            return math.inf
        axis = 1 if shown.ndim > 3 else shown.ndim - 1
        shape = [n if k == axis and k else 1 for k, n in enumerate(shown.shape)]
        answer = torch.zeros(shape, dtype=shown.dtype, device=shown.device, requires_grad=True)
        search = torch.optim.LBFGS([answer], max_iter=BLIND_STEPS, line_search_fn="strong_wolfe")

        def evaluate() -> torch.Tensor:
            search.zero_grad()
            value = call.objective(answer.expand_as(shown))
            value.backward()  # type: ignore[no-untyped-call]
            return value

        search.step(evaluate)  # type: ignore[no-untyped-call]
        least = float(evaluate().detach())
    except Exception:  # a loss that takes no such answer
        return math.inf
    return least if 0 < least < math.inf else math.inf


def draw_afresh(model: nn.Module, optimizer: Any, seed: int) -> tuple[nn.Module, Any] | None:
    """A copy, with its optimizer, whose layers start as torch starts them; what was done around them stays.

    None if a weight belongs to none of torch's layers.
    """
    twin, held = copy.deepcopy((model, optimizer))
    drawn = set[int]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in twin.modules():
            start = getattr(module, "reset_parameters", None)
            if type(module).__module__.startswith("torch.nn") and callable(start):
                start()
                drawn |= {id(p) for p in module.parameters(recurse=False)}
    return (twin, held) if all(id(p) in drawn for p in twin.parameters()) else None


def can_run(model: nn.Module, batch: Any, loss: Any) -> bool:
    """Whether a copy of a model and its loss take a batch, such as a part of one."""
    try:
        _judge(copy_model(model), batch, loss)
    except Exception:  # a loss may hold the size of the whole batch
        return False
    return True


def measure_lag(
    before: tuple[float, ...], after: tuple[float, ...], comparable: bool = True, unseen: bool = False
) -> float:
    """How far the treated side is behind in the loss reached at the same step, in units of the first loss.

    Negative if it is ahead; inf if it breaks, whatever the other does. `unseen`:
    the losses are of samples that the training does not see. The unit is the smaller first loss. If the
    losses are different functions (`comparable` False), each is divided by its own first loss.
    """
    steps = min(len(before), len(after))
    if not _finite(after):
        return math.inf
    if not _finite(before):
        return -math.inf
    if steps < 2:
        return 0.0
    old, new = _reach(before[:steps], unseen), _reach(after[:steps], unseen)
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


def _reach(losses: tuple[float, ...], unseen: bool) -> float:
    """The median of the last few losses; on unseen samples the lowest median of any few in a row."""
    few = [sorted(losses[max(0, k - FEW_LOSSES) : k]) for k in range(1, len(losses) + 1)]
    medians = [part[len(part) // 2] for part in few]
    return min(medians[min(FEW_LOSSES, len(medians)) - 1 :]) if unseen else medians[-1]


def looks_trained(model: nn.Module, optimizer: Any = None) -> bool:
    """Whether a model was trained: its optimizer has a state, or its batch statistics have counted."""
    if optimizer is not None and getattr(optimizer, "state", None):
        return True
    counted = [
        m.num_batches_tracked for m in model.modules() if getattr(m, "num_batches_tracked", None) is not None
    ]
    return any(int(c) > 1 for c in counted if isinstance(c, torch.Tensor))
