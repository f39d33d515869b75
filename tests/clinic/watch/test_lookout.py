"""Trainings that nobody told of are watched from their first forward on, and train as they would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks, register_optimizer_step_post_hook

from unvanish.clinic.watch import lookout
from unvanish.clinic.watch.lookout import Lookout

STEPS = 12


class Net(nn.Module):
    """A network of its own class, which a compiler takes whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


def _net(width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))


def _train(model: nn.Module, optimizer: Any, steps: int = STEPS, **named: Any) -> list[float]:
    losses, generator = [], torch.Generator().manual_seed(1)
    for _ in range(steps):
        x, y = torch.randn(16, 8, generator=generator), torch.randint(0, 3, (16,), generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(**{key: x for key in named}) if named else model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def _plain() -> list[float]:
    model = _net()
    return _train(model, torch.optim.Adam(model.parameters(), 1e-2))


def _by_keyword() -> list[float]:
    model = _net()
    return _train(model, torch.optim.Adam(model.parameters(), 1e-2), input=0)


def _run_before_its_optimizer_is_made() -> list[float]:
    model = _net()
    model(torch.zeros(2, 8))
    return _train(model, torch.optim.Adam(model.parameters(), 1e-2))


def _first_forward_fails() -> list[float]:
    model = _net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with pytest.raises(RuntimeError, match="shapes"):
        model(torch.zeros(2, 5))
    return _train(model, optimizer)


def _a_part_is_called() -> list[float]:
    whole = nn.ModuleDict({"net": _net()})
    return _train(whole["net"], torch.optim.Adam(whole.parameters(), 1e-2))


@pytest.mark.parametrize(
    "run",
    [_plain, _by_keyword, _run_before_its_optimizer_is_made, _first_forward_fails, _a_part_is_called],
)
def test_every_step_is_seen_and_none_is_changed(run: Callable[[], list[float]]) -> None:
    alone = run()
    with Lookout(on_finding="silent") as lookout:
        assert run() == alone
    (watch,) = lookout.watches
    assert watch.steps == STEPS and not watch.failure and not lookout.guard.failure
    assert watch.history.steps.rows[0]["loss"] == pytest.approx(alone[0])
    assert len(watch.history.sites) > 4  # a first look was made of the first forward
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_a_rate_a_thousand_times_too_large_is_named_by_its_first_step() -> None:
    with Lookout(on_finding="silent") as lookout:
        model = _net(64)
        _train(model, torch.optim.Adam(model.parameters(), 3.0), 20)
    (watch,) = lookout.watches
    assert watch.findings[0].code == "OPT008" and "at step 0" in watch.findings[0].cause


def test_two_networks_that_are_trained_in_turn_are_both_seen_from_the_start() -> None:
    with Lookout(on_finding="silent") as lookout:
        one, other = _net(), _net()
        optimizers = [torch.optim.Adam(m.parameters(), 1e-2) for m in (one, other)]
        x, y = torch.randn(16, 8), torch.randint(0, 3, (16,))
        for _ in range(STEPS):
            for model, optimizer in zip((one, other), optimizers, strict=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
    assert [w.steps for w in lookout.watches] == [STEPS, STEPS]
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_a_network_that_comes_later_is_found_by_its_first_step() -> None:
    with Lookout(on_finding="silent") as lookout:
        for _ in range(2):
            model = _net()
            _train(model, torch.optim.Adam(model.parameters(), 1e-2))
    assert [w.steps for w in lookout.watches] == [STEPS, STEPS - 1]


def test_several_optimizers_of_one_network_are_taken_in_as_they_step() -> None:
    with Lookout(on_finding="silent") as lookout:
        model = _net()
        first = torch.optim.SGD(model[0].parameters(), 0.1)
        last = torch.optim.Adam(model[3].parameters(), 1e-2)
        idle = torch.optim.Adam(model.parameters(), 1e3)  # made, and never used
        x, y = torch.randn(16, 8), torch.randint(0, 3, (16,))
        for _ in range(STEPS):
            model.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            first.step()
            last.step()
    (watch,) = lookout.watches
    assert watch.steps == STEPS and set(watch.watched.optimizers) == {first, last}
    assert idle not in watch.watched.optimizers and not watch.findings


def test_an_optimizer_that_takes_over_later_is_taken_in() -> None:
    with Lookout(on_finding="silent") as lookout:
        model = _net()
        _train(model, torch.optim.SGD(model.parameters(), 0.1), 4)
        _train(model, torch.optim.Adam(model.parameters(), 1e-2), 5)
    (watch,) = lookout.watches
    assert watch.steps == 9


def test_what_is_compiled_meets_no_hook_of_ours() -> None:
    def run() -> list[float]:
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        model.compile(backend="eager", fullgraph=True)
        return _train(model, optimizer)

    alone = run()
    with Lookout(on_finding="silent") as lookout:
        assert run() == alone
    (watch,) = lookout.watches
    assert watch.steps == STEPS - 1 and not watch.failure


def test_a_network_that_is_only_asked_is_not_searched_for() -> None:
    with Lookout(on_finding="silent") as lookout:
        model = _net()
        optimizer = torch.optim.Adam(model.parameters())
        with torch.no_grad():
            model(torch.zeros(2, 8))
        held: Tensor = model.eval()(torch.zeros(2, 8))
        assert held.requires_grad and optimizer.param_groups
    assert not lookout.watches


def test_a_search_that_fails_after_a_step_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("planted")

    wanted = _plain()
    monkeypatch.setattr(lookout, "find_models", fail)
    monkeypatch.setattr(lookout, "find_optimizers", lambda _: [])
    with Lookout(on_finding="silent") as looking:
        other = register_optimizer_step_post_hook(lambda *_: None)  # torch has it still to call
        with pytest.warns(RuntimeWarning, match="took itself off"):
            assert _plain() == wanted
        other.remove()
        assert looking.guard.failure
    assert not _global_optimizer_post_hooks
