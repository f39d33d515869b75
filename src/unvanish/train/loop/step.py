"""One optimizer step: forward, backward, the guard, the step, the running mean.

Notable:
- A step may take several batches (accumulation); each counts the same, also in a window at an epoch's end
  that holds fewer.
- Where the task sums its loss over samples, so do the gradients; what is told stays the mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unvanish.train.loop.clipping import Guard, mend
from unvanish.train.loop.devices import moved
from unvanish.train.loop.ema import Ema


def called(model: nn.Module, x: Any) -> Any:
    """The model's output; several inputs come as a tuple."""
    return model(*x) if isinstance(x, (tuple, list)) else model(x)


def size(y: Any) -> int:
    """How many samples a target is of."""
    return len(y[0]) if isinstance(y, (tuple, list)) else len(y)


@dataclass
class Stepper:
    """Everything a step needs."""

    accelerator: Any
    model: nn.Module  # as prepared: it may be wrapped
    plain: nn.Module  # the network itself
    optimizer: Any
    criterion: Callable[[Any, Any], Tensor]
    guard: Guard
    ema: Ema | None
    before: Callable[[], None]  # just before the optimizer's step
    count: Callable[[Any, Any], int] = lambda x, y: size(y)  # samples of a batch
    summed: bool = False  # gradients of the loss summed over the samples of all batches

    def __call__(self, window: Sequence[Any]) -> int:
        """Make one step of the batches; how many samples they hold."""
        samples, total, last = 0, None, len(window) - 1
        for number, batch in enumerate(window):
            x, y = moved(self.accelerator, batch)
            waits = contextlib.nullcontext() if number == last else self.accelerator.no_sync(self.model)
            with waits:
                with self.accelerator.autocast():
                    loss = self.criterion(called(self.model, x), y)
                held = self.count(x, y)
                mean = loss / len(window) if last else loss
                self.accelerator.backward(loss * self._factor(held) if self.summed else mean)
            total = mean.detach() if total is None else total + mean.detach()
            samples += held
        self._step(total)
        return samples

    def _factor(self, samples: int) -> int:
        """From a mean over the batch to its sum, where processes average what they share."""
        return samples * int(self.accelerator.num_processes)

    def _step(self, loss: Any) -> None:
        self.accelerator.unscale_gradients()
        self.guard.look(loss, alone=self.accelerator.num_processes == 1)
        self.guard.clip(self.optimizer)
        self.before()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if not self.guard.finite:
            mend(self.plain)
        elif self.ema is not None:
            self.ema.update()
