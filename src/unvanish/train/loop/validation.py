"""One pass over the validation data: loss and metrics, of the network as it is.

Notable:
- Each process sees its part and judges all of it; padding samples at the end do not count. If the metrics say
  `whole`, each process sees all of it.
- Heads that decode return their raw maps, which the loss reads and the metrics decode.
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

from unvanish.train.loop.devices import to_device
from unvanish.train.loop.parts import add_parts, read_parts
from unvanish.train.loop.step import call, count_samples

DECODED = 4  # batches that are decoded for metrics that read texts


@dataclass(frozen=True)
class Validation:
    """Metrics by name, the mean loss and its parts, tables such as the confusion, samples, seconds."""

    metrics: Mapping[str, float]
    loss: float = math.nan
    tables: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 0
    seconds: float = math.nan
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def milliseconds(self) -> float:
        """Milliseconds a sample."""
        return 1e3 * self.seconds / max(1, self.samples)


@contextlib.contextmanager
def raw_maps(net: nn.Module) -> Iterator[None]:
    """Within the block, heads that decode in evaluation return their raw maps."""
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
    network: nn.Module,
    loader: Any,
    criterion: Callable[[Any, Any], Any],
    metrics: Any,
    event: Callable[[str], None] = lambda name: None,
    count: Callable[[Any, Any], int] = count_samples,
) -> Validation:
    """Run the model, as prepared, over a loader in evaluation mode; afterwards its mode is as before."""
    training, started = network.training, time.perf_counter()
    model.eval()
    total, samples = 0.0, 0
    parts: dict[str, float] = {}
    decodes, whole = (getattr(metrics, name, False) for name in ("decodes", "whole"))
    try:
        with torch.no_grad(), raw_maps(network):
            for number, batch in enumerate(loader):
                event("on_val_batch_start")
                x, y = to_device(accelerator, batch)
                with accelerator.autocast():
                    output = call(model, x)
                if decodes and number < DECODED:
                    metrics.observe(network, x, y)
                if accelerator.num_processes > 1 and not whole:
                    output, y = accelerator.gather_for_metrics((output, y))
                held = count(x, y)
                total += float(criterion(output, y)) * held
                add_parts(parts, read_parts(criterion), held)
                samples += held
                metrics.update(output, y)
                event("on_val_batch_end")
    finally:
        model.train(training)
    found = {key: float(value) for key, value in metrics.compute().items()} if samples else {}
    tables = metrics.tables() if samples and hasattr(metrics, "tables") else {}
    seconds = time.perf_counter() - started
    means = {name: value / max(1, samples) for name, value in parts.items()}
    return Validation(found, total / max(1, samples), tables, samples, seconds, means)
