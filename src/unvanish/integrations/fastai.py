"""fastai: `Learner(..., cbs=FastaiWatch())`, or `learn.fit_one_cycle(1, cbs=FastaiWatch())`.

Notable:
- fastai's optimizers are none of torch's: a step is what lies between `before_step` and `after_step`. Within
  an `OptimWrapper` the torch optimizer is watched.
- It comes after `MixedPrecision`, which takes the loss scale out and leaves out what is not finite, and
  before `GradientClip`; parts of an accumulated step do not come to it.
- A guard leaves a step out by `CancelStepException`.
- Findings are written above its progress bar, or printed without one. Numbers are metrics of the recorder, so
  its table, `CSVLogger` and the like have them, an epoch a row.
- fastai tells callbacks of no exception: the watch ends with the next training, or with the callback.
"""

from __future__ import annotations

import weakref
from typing import Any

from fastai.callback.core import (
    Callback,
    CancelFitException,
    CancelStepException,
)
from fastai.callback.fp16 import MixedPrecision
from fastai.learner import ValueMetric
from torch.optim import Optimizer

from unvanish.integrations.attachment import PREFIX, Attachment
from unvanish.integrations.optimizer_face import OptimizerFace

LIBRARIES = ("fastai", "torch")
RECORDED = ("gradient_norm", "warnings")  # what the recorder has not of its own


class FastaiWatch(Callback):
    """Watches what a Learner trains.

    `log`: whether the recorder gets the norm of the last step's gradient and how many warnings there are.
    `stop`: True ends the training at an error by `CancelFitException`; or the codes of rules that end it.
    `options`: keyword arguments of `unvanish.watch`; what is wrong with one is raised here.
    """

    order = MixedPrecision.order + 0.5
    run_valid = False

    def __init__(self, *, log: bool = True, stop: Any = False, **options: Any) -> None:
        super().__init__()
        self.logs = log
        self.attachment = Attachment(stop=stop, **options)
        self._face: OptimizerFace | None = None

    @property
    def watch(self) -> Any:
        """The watch of the present or the last training; None before one."""
        return self.attachment.watch

    def before_fit(self) -> None:
        """Attach; not for a search of the learning rate."""
        learn = self.learn
        inner: Any = getattr(learn.opt, "opt", None)
        optimizer: Any = inner
        if isinstance(inner, Optimizer):
            self._face = None
        else:
            optimizer = self._face = OptimizerFace(
                [p for p, *_ in learn.opt.all_params()], float(learn.opt.hypers[-1].get("lr", 0.0))
            )
        kept = weakref.ref(learn)

        def tell(text: str, severity: str) -> None:
            _write(kept(), text)

        self.attachment.open(learn.model, optimizer, scaler=getattr(learn, "scaler", None), tell=tell)
        self._clear_metrics()
        if self.logs:
            learn.metrics = learn.metrics + [RecordedNumber(self.attachment, name) for name in RECORDED]

    def before_step(self) -> None:
        """A step is about to be made."""
        if self._face is not None and not self._face.begin(float(self.learn.opt.hypers[-1]["lr"])):
            self._face.end()
            raise CancelStepException

    def after_step(self) -> None:
        """The step was made."""
        if self._face is not None:
            self._face.end()

    def after_batch(self) -> None:
        """Stop if that is wanted."""
        if self.attachment.ends():
            raise CancelFitException

    def after_fit(self) -> None:
        """Detach."""
        self._clear_metrics()
        self._face = None
        self.attachment.close()

    def _clear_metrics(self) -> None:
        """Take our metrics off the learner; they may be those of a training that was broken off."""
        self.learn.metrics = self.learn.metrics.filter(lambda one: not isinstance(one, RecordedNumber))


class RecordedNumber(ValueMetric):
    """A number of the step just made, as a metric; it does not hold the callback."""

    def __init__(self, attachment: Attachment, name: str) -> None:
        kept, called = weakref.ref(attachment), PREFIX + name

        def read() -> float | None:
            at = kept()
            return None if at is None else at.metrics().get(called)

        super().__init__(read, called)


def _write(learn: Any, text: str) -> None:
    """Write above the progress bar of a learner, if there is one."""
    bar = getattr(getattr(learn, "progress", None), "mbar", None)
    if bar is None:
        print(text, flush=True)
    else:
        bar.write(text)
