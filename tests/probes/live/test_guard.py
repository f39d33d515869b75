"""What a watch hangs up is held before it hangs; readings that can be done without are noted, not silent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import unvanish
from unvanish.clinic.watch.lookout import Lookout
from unvanish.probes.live import backwards, loss_roots
from unvanish.probes.live.guard import Hung, WatchGuard
from unvanish.probes.saved import find_saved


class Handle:
    """Of a hook in `table`; cannot be taken off the first `stuck` times."""

    def __init__(self, table: list[Any], entry: Any, stuck: int = 0) -> None:
        self.table, self.entry, self.stuck = table, entry, stuck
        table.append(entry)

    def remove(self) -> None:
        self.stuck -= 1
        if self.stuck >= 0:
            raise ZeroDivisionError("planted")
        if self.entry in self.table:
            self.table.remove(self.entry)


def fail(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError("planted")


def train(look: Any, steps: int = 3) -> list[float]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch, losses = look(model, optimizer), []
    for step in range(steps):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(model(x), torch.arange(8) % 3) / 2
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    if watch is not None:
        watch.close()
    return losses


def test_a_hook_that_is_replaced_comes_off_though_the_first_one_was_stuck() -> None:
    table: list[Any] = []
    hook = Hung()
    hook.hang(Handle, table, "first", 1)
    with pytest.raises(ZeroDivisionError):
        hook.replace(Handle, table, "second")
    assert table == ["first", "second"]
    hook.remove()
    assert not table


def test_a_guard_that_takes_over_a_failure_takes_all_off_and_raises_nothing() -> None:
    table: list[Any] = []
    guard, other = WatchGuard("one"), WatchGuard("another")
    guard.hang(Handle, table, "stuck", 1)
    guard.hang(Handle, table, "loose")
    with pytest.warns(RuntimeWarning, match="planted"):
        other.run(fail)
    guard.take_over(other)
    assert guard.failure == other.failure and not table


def test_what_cannot_be_read_off_the_loss_is_noted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, seen = train(lambda *_: None), []

    def look(*args: Any) -> Any:
        seen.append(unvanish.watch(*args, every=1, on_finding="silent"))
        return seen[0]

    monkeypatch.setattr(loss_roots, "find_saved", fail)
    assert train(look) == wanted
    assert not seen[0].failure
    notes = [note for note in seen[0].notes if "planted" in note]
    assert len(notes) == len(set(notes)) and any("multiplied" in note for note in notes)


def test_a_backward_runs_though_nobody_can_be_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = train(lambda *_: None)
    monkeypatch.setattr(backwards, "_find_task", fail)
    with pytest.warns(RuntimeWarning, match="took itself off"):
        assert train(lambda *args: unvanish.watch(*args, every=1, on_finding="silent")) == wanted
    assert torch.autograd._engine_run_backward is not backwards._run_backward  # type: ignore[attr-defined]


def test_a_search_for_models_that_cannot_begin_ends_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = train(lambda *_: None)
    monkeypatch.setattr("unvanish.clinic.watch.lookout.WatchEntry", fail)
    with pytest.warns(RuntimeWarning, match="the search for models failed"), Lookout():
        assert train(lambda *_: None) == wanted


def test_what_a_node_has_lost_is_none_and_anything_else_a_failure() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x * x
    assert find_saved(y.grad_fn, "_saved_self") is not None
    assert find_saved(y.grad_fn, "_saved_nothing") is None
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert find_saved(y.grad_fn, "_saved_self") is None

    class Odd:
        @property
        def _saved_self(self) -> None:
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        find_saved(Odd(), "_saved_self")
