"""One pass over the validation data: loss and metrics, of the network as it is.

Notable:
- Several processes see their parts and judge all of it; padding samples at the end do not count. Where
  metrics say `whole`, each sees all of it.
- Heads that decode give what they decode from, which the loss reads and the metrics decode.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from unvanish.train.loop.devices import moved
from unvanish.train.loop.step import called, size

DECODED = 4  # batches that are decoded where a metric reads texts


@dataclass(frozen=True)
class Validation:
    """Metrics by name, the mean loss, tables such as the confusion, samples, seconds."""

    metrics: Mapping[str, float]
    loss: float = math.nan
    tables: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 0
    seconds: float = math.nan

    @property
    def milliseconds(self) -> float:
        """Of one sample."""
        return 1e3 * self.seconds / max(1, self.samples)


@contextlib.contextmanager
def undecoded(net: nn.Module) -> Iterator[None]:
    """Heads that decode in evaluation give their raw maps, for as long as this lasts."""
    heads: list[Any] = [m for m in net.modules() if getattr(m, "decodes", False)]
    for head in heads:
        head.decodes = False
    try:
        yield
    finally:
        for head in heads:
            head.decodes = True


def validate(
    accelerator: Any,
    model: nn.Module,
    plain: nn.Module,
    loader: Any,
    criterion: Callable[[Any, Any], Any],
    metrics: Any,
    event: Callable[[str], None] = lambda name: None,
    count: Callable[[Any, Any], int] = lambda x, y: size(y),
) -> Validation:
    """Run the model over a loader in evaluation mode; its mode is as before afterwards."""
    training, started = plain.training, time.perf_counter()
    model.eval()
    total, samples = 0.0, 0
    decodes, whole = (getattr(metrics, name, False) for name in ("decodes", "whole"))
    try:
        with torch.no_grad(), undecoded(plain):
            for number, batch in enumerate(loader):
                event("on_val_batch_start")
                x, y = moved(accelerator, batch)
                with accelerator.autocast():
                    output = called(model, x)
                if decodes and number < DECODED:
                    metrics.observe(plain, x, y)
                if accelerator.num_processes > 1 and not whole:
                    output, y = accelerator.gather_for_metrics((output, y))
                held = count(x, y)
                total += float(criterion(output, y)) * held
                samples += held
                metrics.update(output, y)
                event("on_val_batch_end")
    finally:
        model.train(training)
    found = {key: float(value) for key, value in metrics.compute().items()} if samples else {}
    tables = metrics.tables() if samples and hasattr(metrics, "tables") else {}
    seconds = time.perf_counter() - started
    return Validation(found, total / max(1, samples), tables, samples, seconds)
