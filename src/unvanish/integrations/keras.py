"""Keras 3 on torch: `model.fit(..., callbacks=[KerasWatch()])`.

Notable:
- Keras' optimizers are none of torch's, so `apply` of the one that steps is wrapped on the instance for the
  time of the training: there gradients are read, before `clipnorm`, and a guard leaves a step out.
- Under `LossScaleOptimizer` the optimizer within is watched, which is given gradients without the scale.
- With `gradient_accumulation_steps` the mean over the parts is watched, which takes a copy of the gradients.
- Findings go where Keras' own callbacks write: to the terminal, or to absl's log if
  `keras.config.disable_interactive_logging()` was called.
- Keras tells callbacks of no exception: the watch ends with the list of callbacks that `fit` made.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch
from torch import Tensor

from unvanish.integrations.attachment import Attachment
from unvanish.integrations.logs import write_by
from unvanish.integrations.optimizer_face import OptimizerFace, exchange_gradients
from unvanish.probes.errors import CheckError

LIBRARIES = ("keras", "torch")


class KerasWatch(keras.callbacks.Callback):
    """Watches what `fit` trains; numbers of the step go into the logs, as "unvanish/gradient_norm" and so on.

    `stop`: True ends the training at an error by `model.stop_training`; or the codes of rules that end it.
    `options`: keyword arguments of `unvanish.watch`; what is wrong with one is raised here. CheckError unless
    Keras runs on torch.
    """

    def __init__(self, *, stop: Any = False, **options: Any) -> None:
        super().__init__()
        if keras.backend.backend() != "torch":
            raise CheckError(
                f"Keras runs on {keras.backend.backend()}, and unvanish sees torch alone; set "
                "KERAS_BACKEND=torch before keras is imported"
            )
        self.attachment = Attachment(stop=stop, **options)
        self._held: list[Any] = []  # what stands in front of the optimizer

    @property
    def watch(self) -> Any:
        """The watch of the present or the last training; None before one."""
        return self.attachment.watch

    def on_train_begin(self, logs: Any = None) -> None:
        """Attach."""
        self.close()
        optimizer, ways = self.model.optimizer, [way for way in self.attachment.ways if isinstance(way, str)]
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        applied = Applied(
            optimizer.inner_optimizer if scaled else optimizer,
            self.model.trainable_variables,
            guarded=not {"guard", "guard-agc"}.isdisjoint(ways),
        )
        scaler = LossScale(optimizer, applied.face) if scaled else None
        self._held = [applied] if scaler is None else [applied, scaler]
        self.attachment.open(self.model, applied.face, scaler=scaler, tell=_tell)
        caller = sys._getframe(1).f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            self.attachment.end_with(caller)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Log the step's numbers, and stop if that is wanted."""
        if logs is not None:
            logs.update(self.attachment.metrics())
        if self.attachment.ends():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Give the numbers of the last step to the history."""
        if logs is not None:
            logs.update(self.attachment.metrics())

    def on_train_end(self, logs: Any = None) -> None:
        """Detach."""
        self.close()

    def close(self) -> None:
        """Detach and write what is left; harmless when repeated."""
        self.attachment.close()
        for held in self._held:
            held.remove()
        self._held = []

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_held": []}


def _tell(text: str, severity: str) -> None:
    if keras.config.is_interactive_logging_enabled():
        print(f"\n{text}", flush=True)  # its bar stands on a line that has not ended
    else:
        write_by(logging.getLogger("absl"))(text, severity)


class LossScale:
    """Stands in front of the `apply` of a Keras optimizer that scales the loss; asked as a GradScaler is."""

    def __init__(self, optimizer: Any, face: OptimizerFace) -> None:
        self._optimizer, self._face = optimizer, face
        self._apply: Callable[..., Any] = optimizer.apply
        vars(optimizer)["apply"] = self.apply

    def get_scale(self) -> float:
        """What the loss is multiplied by at present."""
        known = self._optimizer.dynamic_scale if self._optimizer.built else self._optimizer.initial_scale
        return float(known)

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """The optimizer's `apply`, as a GradScaler's step."""
        return self.step(self._face, *args, **kwargs)

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Step, or leave the step out; a watch hears of it by its own function in this place."""
        return self._apply(*args, **kwargs)

    def remove(self) -> None:
        """Take it off; if something else stands there now, it stays."""
        if vars(self._optimizer).get("apply") == self.apply:
            del vars(self._optimizer)["apply"]


class Applied:
    """Stands in front of an optimizer's `apply` until it is removed.

    `face`: the optimizer as a watch sees it. `guarded`: whether non-finite steps are to be left out.
    """

    def __init__(self, optimizer: Any, variables: Sequence[Any], guarded: bool) -> None:
        self._optimizer, self._guarded = optimizer, guarded
        self._sums: dict[int, Tensor] = {}  # of an accumulated step's gradients, by parameter
        self.face = OptimizerFace([v.value for v in variables], float(optimizer.learning_rate))
        self._apply: Callable[..., Any] = optimizer.apply
        vars(optimizer)["apply"] = self.apply

    def remove(self) -> None:
        """Take it off; if something else stands there now, it stays."""
        if vars(self._optimizer).get("apply") == self.apply:
            del vars(self._optimizer)["apply"]

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """The optimizer's `apply`, a step of the watch around it."""
        variables = trainable_variables or self._optimizer.trainable_variables
        parameters = [v.value for v in variables]
        parts = self._optimizer.gradient_accumulation_steps or 1
        if parts > 1:
            return self._accumulate(parameters, grads, trainable_variables, parts)
        before, result = exchange_gradients(parameters, grads), None
        try:
            if self.face.begin(float(self._optimizer.learning_rate)):
                result = self._apply([p.grad for p in parameters], trainable_variables)
        finally:
            exchange_gradients(parameters, before)
        self.face.end()
        return result

    def _accumulate(self, parameters: list[Any], grads: Any, variables: Any, parts: int) -> Any:
        """A part of a step; the step itself is the last one, whose gradient is the mean over all.

        Keras adds the parts up where no guard reaches, so a guarded part that is not finite counts as zero.
        """
        for p, g in zip(parameters, grads, strict=True):
            if g is not None:
                self._sums[id(p)] = self._sums[id(p)] + g if id(p) in self._sums else g.clone()
        given = _silence(grads) if self._guarded else grads
        if (int(self._optimizer.iterations) + 1) % parts:
            return self._apply(given, variables)
        means = [self._sums[id(p)] / parts if id(p) in self._sums else None for p in parameters]
        self._sums.clear()
        before = exchange_gradients(parameters, means)
        try:
            self.face.begin(float(self._optimizer.learning_rate))
        finally:
            exchange_gradients(parameters, before)
        result = self._apply(given, variables)
        self.face.end()
        return result


def _silence(grads: Sequence[Any]) -> Sequence[Any]:
    """Gradients, or zeros in their place if one of them is not finite."""
    if all(bool(torch.isfinite(g).all()) for g in grads if g is not None):
        return grads
    return [None if g is None else torch.zeros_like(g) for g in grads]
