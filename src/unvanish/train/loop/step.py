"""One optimizer step: forward, backward, guard, step, running mean.

Notable:
- A step may take several batches (accumulation); each counts the same, also if a window at an epoch's end
  holds fewer.
- If the task sums its loss over samples, so do the gradients; the reported loss remains the mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unvanish.train.loop.clipping import mend
from unvanish.train.loop.devices import to_device
from unvanish.train.loop.engine import Engine
from unvanish.train.loop.parts import add_parts, read_parts


def call(model: nn.Module, x: Any) -> Any:
    """The model's output; several inputs come as a tuple."""
    return model(*x) if isinstance(x, (tuple, list)) else model(x)


def count_samples(x: Any, y: Any) -> int:
    """How many samples a batch holds, by its targets."""
    return len(y[0]) if isinstance(y, (tuple, list)) else len(y)


@dataclass(frozen=True)
class Stepper:
    """Makes steps: an engine and a loss."""

    engine: Engine
    criterion: Callable[[Any, Any], Tensor]
    before: Callable[[], None]  # just before the optimizer's step
    count: Callable[[Any, Any], int] = count_samples
    summed: bool = False  # gradients of the loss summed over the samples of all batches

    def __call__(self, window: Sequence[Any]) -> tuple[int, dict[str, float]]:
        """Make one step of the batches; returns how many samples they hold, and the parts of their loss."""
        engine, accelerator = self.engine, self.engine.accelerator
        samples, total, last = 0, None, len(window) - 1
        parts: dict[str, float] = {}
        for number, batch in enumerate(window):
            x, y = to_device(accelerator, batch)
            waits = contextlib.nullcontext() if number == last else accelerator.no_sync(engine.model)
            with waits:
                with accelerator.autocast():
                    loss = self.criterion(call(engine.model, x), y)
                held = self.count(x, y)
                mean = loss / len(window) if last else loss
                # from a mean over the batch to its sum, since processes average what they share
                accelerator.backward(loss * (held * engine.processes) if self.summed else mean)
            total = mean.detach() if total is None else total + mean.detach()
            add_parts(parts, read_parts(self.criterion), 1 / len(window))
            samples += held
        self._step(total)
        return samples, parts

    def _step(self, loss: Any) -> None:
        engine, guard = self.engine, self.engine.guard
        engine.accelerator.unscale_gradients()
        guard.look(loss, alone=engine.processes == 1)
        guard.clip(engine.optimizer)
        self.before()
        engine.optimizer.step()
        engine.optimizer.zero_grad()
        if not guard.finite:
            mend(engine.network)
        elif engine.ema is not None:
            engine.ema.update()
