"""Numbers of a step on their way from a CUDA device: copied without waiting, read when they have arrived."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Sent = tuple[Any, Sequence[str], Tensor, Any]  # whose numbers, their names, where they arrive, their event


class Latecomers:
    """Brings tensors of one element that are attributes of an object, and puts floats in their place.

    `waiting`: what is on its way.
    """

    def __init__(self) -> None:
        self.waiting: deque[Sent] = deque()

    @torch.no_grad()
    def send(self, owner: Any, names: Sequence[str]) -> None:
        """Begin to copy these attributes of `owner`, if they lie on a CUDA device and nothing is captured."""
        found = [(n, t) for n in names if isinstance(t := getattr(owner, n), Tensor) and t.is_cuda]
        if not found or torch.cuda.is_current_stream_capturing():
            return
        device = found[0][1].device
        numbers = [t.detach().to(device, torch.float64).reshape(()) for _, t in found]
        target = torch.empty(len(numbers), dtype=torch.float64, pin_memory=True)
        with torch.cuda.device(device):
            target.copy_(torch.stack(numbers), non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self.waiting.append((owner, [n for n, _ in found], target, event))

    def take(self) -> list[Any]:
        """The owners whose numbers have arrived since the last time, in order; never waits."""
        arrived = []
        if self.waiting and torch.cuda.is_current_stream_capturing():
            return []
        while self.waiting and self.waiting[0][3].query():
            owner, names, target, _ = self.waiting.popleft()
            for name, value in zip(names, target.tolist(), strict=True):
                if isinstance(getattr(owner, name), Tensor):  # a look may have brought it
                    setattr(owner, name, value)
            arrived.append(owner)
        return arrived
