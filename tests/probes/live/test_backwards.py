"""Backwards are heard of, whoever calls them, and nothing stays when nobody listens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from unvanish.probes.live.backwards import BackwardListener
from unvanish.probes.live.guard import WatchEntry, WatchGuard


class Diary:
    """What was heard."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, roots: Any, chosen: bool) -> None:
        self.told.append((len(roots), chosen))

    def end(self, failed: bool) -> None:
        self.told.append(failed)


def listen_for(diary: Diary, guard: WatchGuard) -> BackwardListener:
    return BackwardListener(WatchEntry(guard, diary.begin), WatchEntry(guard, diary.end))


def test_every_backward_is_heard_of_once() -> None:
    own = torch.autograd._engine_run_backward
    guard, diary = WatchGuard("the test"), Diary()
    first, second = (listen_for(diary, guard) for _ in range(2))
    assert first.listen() and second.listen()
    second.remove()
    layer, x = nn.Linear(3, 3), torch.ones(2, 3, requires_grad=True)
    layer(x).sum().backward()
    assert diary.told == [(1, False), False]
    torch.autograd.backward([layer(x).sum(), layer(x).mean()])
    layer(x).sum().backward(inputs=[layer.weight])
    assert diary.told[2:] == [(2, False), False, (1, True), False]
    torch.autograd.grad(layer(x).sum(), x)
    assert len(diary.told) == 6
    checkpoint(layer, x, use_reentrant=True).sum().backward()
    assert diary.told[6:] == [(1, False), False]
    loss = layer(x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    assert diary.told[-1] is True
    first.remove()
    first.remove()
    assert torch.autograd._engine_run_backward is own


def test_what_somebody_else_put_there_stays() -> None:
    own = torch.autograd._engine_run_backward
    listener = listen_for(Diary(), WatchGuard("the test"))
    listener.listen()
    ours = torch.autograd._engine_run_backward
    try:
        torch.autograd._engine_run_backward = theirs = lambda *a, **k: ours(*a, **k)  # type: ignore[assignment]
        listener.remove()
        assert torch.autograd._engine_run_backward is theirs
        nn.Linear(2, 1)(torch.ones(1, 2)).sum().backward()
    finally:
        torch.autograd._engine_run_backward = own
