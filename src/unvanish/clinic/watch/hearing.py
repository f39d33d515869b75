"""What is heard of the losses and backwards of a watched training."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from unvanish.clinic.watch.clock import StepClock
from unvanish.clinic.watch.judge import Judge
from unvanish.clinic.watch.losses import StepLosses
from unvanish.clinic.watch.response import Response
from unvanish.clinic.watch.steps import NormReader
from unvanish.clinic.watch.watched import Watched
from unvanish.probes.live.examination import find_root
from unvanish.probes.live.guard import WatchEntry, WatchGuard
from unvanish.probes.live.loss_roots import read_pull
from unvanish.probes.live.readable import find_obstacle, is_number, read_number

HEARD = 4  # first steps at which the gradient of the loss is heard; then at looks


class Hearing:
    """Takes in losses and backwards, until it has `ended`. `anything`: whether the process made a backward.

    `stepping`: the optimizer whose closure runs.
    """

    def __init__(
        self,
        guard: WatchGuard,
        watched: Watched,
        clock: StepClock,
        losses: StepLosses,
        norms: NormReader,
        judge: Judge,
        response: Response,
    ) -> None:
        self.guard, self.watched, self.clock = guard, watched, clock
        self.losses, self.norms, self.judge, self.response = losses, norms, judge, response
        self.deeds = judge.deeds
        self._pull: float | None = None  # the gradient that arrives at the loss of the backward that runs
        self._scale = 0  # log2 of its loss scale
        self.step, self.look, self.first, self.trials = judge.step, judge.look, judge.first, judge.trials
        self.anything = self.ended = False
        self.stepping: weakref.ref[Any] | None = None

    def hear_loss(self, output: Any) -> None:
        """The loss module has returned."""
        if torch.is_grad_enabled() and is_number(output) and not self.trials.running:
            self.step.loss = read_number(output)
            self.losses.told = True
            if (self.look.open or self.step.made < HEARD) and output.requires_grad and not find_obstacle():
                output.register_hook(WatchEntry(self.guard, self._hear_pull))

    def _hear_pull(self, gradient: Tensor) -> None:
        """A backward passes the loss."""
        scale = self.watched.loss_scale()
        self.step.hear_backward(gradient.detach() / scale if scale != 1.0 else gradient.detach())

    def begin_backward(self, roots: Any, chosen: bool) -> None:
        """A backward of the process begins; `chosen`: for some tensors only."""
        if self.ended:
            return
        self.anything = True
        examined, tried = self.first.busy, self.trials.open
        if self.losses.told and not examined and not tried:
            return
        self.clock.start()
        scale = self.losses.begin(roots, self.watched.loss_scale())
        self._pull = None
        if self.losses.open and (self.look.open or self.step.made < HEARD):
            root = find_root(roots)
            self._pull = None if root is None or root.ndim else self._read_pull(root)
            self._scale = scale
        if examined:
            self.first.examination.hear(roots, chosen, scale)
        if tried:
            self.trials.hear(roots)
        self.clock.stop()

    def _read_pull(self, root: Tensor) -> float | None:
        return self.guard.read("the gradient of the loss", read_pull, root)

    def end_backward(self, failed: bool) -> None:
        """The backward has ended."""
        losses = self.losses
        if failed:
            losses.drop()
        if self.ended or not (losses.open or self.first.busy or self.stepping is not None):
            return
        self.clock.start()
        if self.first.busy:
            self.first.examination.end(failed)
        if losses.end(failed) and not losses.told:
            self.step.loss = losses.value
            if self._pull is not None:
                self.deeds.heard_error = True
                self.step.hear_backward(self._pull / 2.0**self._scale)
        stepping = self.stepping() if self.stepping is not None else None
        if stepping is not None and not failed:
            if self.response.clipper is not None:  # which may take the gradients away
                self.note_norm(stepping)
            self.response.guard(stepping)
        self.clock.stop()

    def note_norm(self, optimizer: Any) -> None:
        """Read the norm that the optimizer steps by; what is not finite is named while it is there."""
        norm, exact = self.norms.read_own(optimizer, self.look.open)
        self.step.add_norm(norm, exact)
        norm = self.step.norm
        if not (type(norm) is float and norm - norm == 0.0):  # it is on a device, or not finite
            self.judge.judge_finite(norm)
