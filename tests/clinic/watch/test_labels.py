"""A watched loss is held against the entropy of its labels, wherever it is made, if it is that alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish
from unvanish.core.diagnosis import Finding

Loss = Callable[[Any, Tensor, Tensor], Tensor]
STEPS = 330


def _train(loss: Loss, *, shuffled: bool = True, module: Any = None, yes_no: bool = False) -> list[Finding]:
    """Findings of LOS004 in a training of a small network, whose labels may be those of other samples."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    x = torch.randn(4096, 8)
    y: Tensor = (x[:, :3] > 0).float() if yes_no else x[:, :3].argmax(1)
    y = y[torch.randperm(len(y))] if shuffled else y
    with unvanish.watch(model, optimizer, module, every=12, on_finding="silent", select=["LOS004"]) as watch:
        for _ in range(STEPS):
            chosen = torch.randint(0, len(x), (128,))
            optimizer.zero_grad()
            loss(model, x[chosen], y[chosen]).backward()
            optimizer.step()
    assert not watch.failure
    return watch.findings


def _divided(model: Any, x: Tensor, y: Tensor) -> Tensor:
    F.cross_entropy(model(x[:64]), y[:64]).div(2).backward()
    return F.cross_entropy(model(x[64:]), y[64:]) / 2


def _scaled(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y, weight=torch.tensor([1.0, 2.0, 4.0]))


def _other_first(model: Any, x: Tensor, y: Tensor) -> Tensor:
    other = nn.Linear(8, 3)
    F.mse_loss(other(x), x[:, :3]).backward()  # of another network
    return F.cross_entropy(model(x), y)


@pytest.mark.parametrize(
    "loss",
    [lambda model, x, y: F.cross_entropy(model(x), y), _divided, _scaled, _other_first],
    ids=["function", "accumulated", "weighted", "beside another"],
)
def test_labels_of_other_samples_are_guessed(loss: Loss) -> None:
    (found,) = _train(loss)
    assert found.severity == "note" and found.cause.startswith("no better than guessing by frequency")


def test_a_loss_module_is_heard_too() -> None:
    module = nn.CrossEntropyLoss()
    assert _train(lambda model, x, y: module(model(x), y), module=module)
    assert _train(lambda model, x, y: F.binary_cross_entropy_with_logits(model(x), y), yes_no=True)


@pytest.mark.parametrize("yes_no", [True, False])
def test_what_learns_is_left_alone(yes_no: bool) -> None:
    loss: Any = F.binary_cross_entropy_with_logits if yes_no else F.cross_entropy
    assert not _train(lambda model, x, y: loss(model(x), y), shuffled=False, yes_no=yes_no)


def test_a_loss_with_another_term_is_none_of_it() -> None:
    def decayed(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y) + 0.1 * model[0].weight.square().sum()

    assert not _train(decayed)


def test_a_game_whose_labels_are_made_is_left_alone() -> None:
    def play(model: Any, x: Tensor, y: Tensor) -> Tensor:
        real, made = x[:, :3].sum(1), y.float()
        made = real[torch.randperm(len(real))]  # a generator that has caught up
        score = model(torch.cat([real, made])[:, None].expand(-1, 8))[:, 0]
        both = F.binary_cross_entropy_with_logits(score, torch.cat([torch.ones(128), torch.zeros(128)]))
        return both if turn else F.binary_cross_entropy_with_logits(score[:128], torch.ones(128))

    turn = True
    assert all(f.severity == "note" for f in _train(play))
    turn = False
    assert not _train(play)


def test_a_watch_that_fails_at_a_look_leaves_no_ear_behind(monkeypatch: Any) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("planted")

    before = vars(torch.autograd)["_engine_run_backward"]
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monkeypatch.setattr("unvanish.probes.live.updates.Parameters.hold", fail)
    with pytest.warns(RuntimeWarning, match="planted"):
        watch = unvanish.watch(model, optimizer, every=1, on_finding="silent")
        F.cross_entropy(model(torch.randn(8, 4)), torch.randint(0, 2, (8,))).backward()
        optimizer.step()
    assert watch.failure
    assert vars(torch.autograd)["_engine_run_backward"] is before
