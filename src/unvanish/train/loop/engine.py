"""What is trained and what trains it: network, optimizer, guard, running mean, on their devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unvanish.lab.tasks import Task
from unvanish.train.arguments import Arguments
from unvanish.train.loop import optim
from unvanish.train.loop.clipping import Guard
from unvanish.train.loop.ema import Ema


@dataclass(frozen=True)
class Engine:
    """The parts that one optimizer step needs."""

    accelerator: Any
    network: nn.Module  # itself
    model: nn.Module  # as prepared: it may be wrapped
    optimizer: Any  # as prepared
    inner: torch.optim.Optimizer  # torch's own optimizer
    guard: Guard
    ema: Ema | None

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return int(self.accelerator.num_processes)

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return bool(self.accelerator.is_main_process)

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the weights only."""
        return bool(self.accelerator.distributed_type.value == "FSDP")

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes."""
        if self.processes == 1:
            return list(values)
        held = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        total: list[float] = self.accelerator.reduce(held, "sum").tolist()
        return total


def build_engine(
    network: nn.Module, accelerator: Any, arguments: Arguments, task: Task, steps: int, usual: float | None
) -> Engine:
    """The engine of a run of `steps` steps; `usual`: the task's own learning rate for AdamW."""
    made = optim.build_optimizer(network, arguments, task.name, steps, usual)
    model, optimizer = accelerator.prepare(network, made)
    inner = getattr(optimizer, "optimizer", optimizer)
    network = accelerator.unwrap_model(model)
    ema = Ema(network, arguments.ema_decay, arguments.ema_tau) if arguments.ema else None
    guard = Guard(arguments.clip, [p for group in inner.param_groups for p in group["params"]])
    return Engine(accelerator, network, model, optimizer, inner, guard, ema)
