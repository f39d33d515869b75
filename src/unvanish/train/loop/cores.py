"""How many threads of the processor a training takes.

Notable:
- Threads wait for each other at every operation. If another program holds one of the cores they wait for it,
  too: two threads beside one busy program are slower than one. So a network for scenes, whose operations are
  large, begins on as many threads as there are free cores.
- The number is chosen once and stays, also when the run is resumed: other threads add in another order, which
  changes the last bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from unvanish.train.arguments import Arguments

LOOK = 0.2  # seconds in which the other programs are looked at
FIXED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which a user says how many


def choose_threads(arguments: Arguments, heavy: bool, device: str, processes: int) -> tuple[int, str]:
    """The number of threads, and a word if it is below torch's own.

    `heavy`: whether operations are large enough to look for free cores first.
    """
    usual = torch.get_num_threads()
    if arguments.threads is not None:
        return arguments.threads, ""
    if not heavy or device != "cpu" or processes > 1 or usual == 1 or any(n in os.environ for n in FIXED):
        return usual, ""
    free = max(1, min(usual, round(count_free_cores())))
    if free == usual:
        return usual, ""
    return (
        free,
        f" ({free} of {usual} threads: other programs hold the other cores; threads={usual} takes all)",
    )


def count_free_cores() -> float:
    """How many of this process's cores nobody uses now."""
    busy = psutil.cpu_percent(interval=LOOK, percpu=True)
    affinity = getattr(os, "sched_getaffinity", None)
    own = affinity(0) if affinity is not None else range(len(busy))
    return float(sum(1 - busy[core] / 100 for core in own if core < len(busy)))


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Within the block torch computes on so many threads."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
