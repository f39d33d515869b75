"""The first look says what `check` would say of the steps that really run, and is silent if they are well."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import unvanish
from unvanish.clinic.watch import Watch
from unvanish.probes.live.examination import Examination

cross_entropy = nn.functional.cross_entropy


class Net(nn.Module):
    """Two layers with something in between."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.lower, self.upper, self.between = nn.Linear(8, 16), nn.Linear(16, 3), between

    def forward(self, x: Tensor) -> Tensor:
        return self.upper(self.between(self.lower, x))


def train(
    model: nn.Module,
    optimizer: Any = None,
    objective: Callable[[nn.Module, Tensor, Tensor, int], Tensor] | None = None,
    steps: int = 5,
    watched: bool = True,
) -> tuple[Watch | None, list[float]]:
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3) if optimizer is None else optimizer
    watch = unvanish.watch(model, optimizer, on_finding="silent") if watched else None
    losses = []
    for step in range(steps):
        x, y = torch.randn(16, 8), torch.randint(0, 3, (16,))
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y) if objective is None else objective(model, x, y, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if watch is not None:
        watch.close()
        assert not watch.failure and not any("first" in note for note in watch.notes)
    return watch, losses


def loud(watch: Any) -> list[str]:
    return [f.code for f in watch.findings if f.severity != "note"]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize(
    ("between", "words"),
    [
        (lambda lower, x: torch.tensor(lower(x).tolist()), "tolist"),
        (lambda lower, x: torch.from_numpy(lower(x).detach().numpy()).relu(), "detach"),
        (lambda lower, x: checkpoint(lower, x, use_reentrant=True).relu(), "re-entrant"),
        (lambda lower, x: lower(x).data.tanh(), "data"),
    ],
    ids=["numbers", "numpy", "re-entrant", "data"],
)
def test_a_cut_is_said_within_three_steps(between: Any, words: str) -> None:
    watch, _ = train(Net(between), steps=3)
    assert watch is not None and loud(watch) == ["GRF001"]
    assert words in watch.findings[0].cause and "test_first_look.py" in watch.findings[0].cause


def test_a_reentrant_checkpoint_that_works_is_silent() -> None:
    class Deep(nn.Module):
        """A layer, then two that are checkpointed."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(checkpoint(lambda h: self.second(h).relu(), self.first(x), use_reentrant=True))

    watch, _ = train(Deep())
    assert loud(watch) == []


def test_parameters_that_nobody_holds() -> None:
    model = Net(lambda lower, x: lower(x).relu())
    watch, _ = train(model, torch.optim.SGD(model.upper.parameters(), 0.1), steps=3)
    assert loud(watch) == ["OPT004"]


def test_a_part_that_only_some_batches_use_is_not_unused() -> None:
    model = nn.ModuleDict({"body": nn.Linear(8, 8), "a": nn.Linear(8, 3), "b": nn.Linear(8, 3)})

    def objective(model: Any, x: Tensor, y: Tensor, step: int) -> Tensor:
        return cross_entropy(model["ab"[step % 2]](model["body"](x).relu()), y)

    watch, _ = train(model, objective=objective)
    assert loud(watch) == []
    watch, _ = train(model, objective=lambda m, x, y, _: objective(m, x, y, 0), steps=3)
    assert loud(watch) == ["GRF002"]


def test_two_networks_that_take_turns() -> None:
    maker, judge = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8)), nn.Linear(8, 1)
    judging, making = (
        torch.optim.SGD(judge.parameters(), 0.05),
        torch.optim.SGD(maker.parameters(), 0.05),
    )
    watches = [
        unvanish.watch(maker, making, on_finding="silent"),
        unvanish.watch(judge, judging, on_finding="silent"),
        unvanish.watch(nn.ModuleList([maker, judge]), [making, judging], on_finding="silent"),
    ]
    sign = nn.functional.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(16, 1), torch.zeros(16, 1)
    for _ in range(5):
        noise, real = torch.randn(16, 4), torch.randn(16, 8) + 1
        judging.zero_grad()
        (sign(judge(real), ones) + sign(judge(maker(noise).detach()), zeros)).backward()
        judging.step()
        making.zero_grad()
        sign(judge(maker(noise)), ones).backward()
        making.step()
    for watch in watches:
        watch.close()
        assert not watch.failure and loud(watch) == [], watch


def test_a_vanishing_net_is_named_by_its_cause() -> None:
    layers = [part for _ in range(20) for part in (nn.Linear(8, 8), nn.Sigmoid())]
    watch, _ = train(nn.Sequential(*layers, nn.Linear(8, 3)), steps=12)
    assert loud(watch) == ["ACT002"]


def test_it_is_made_again_when_the_graph_changes() -> None:
    model = Net(lambda lower, x: lower(x).detach().relu())
    model.lower.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(0)
    with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
        for step in range(12):
            if step == 6:
                assert loud(watch) == []
                model.lower.requires_grad_(True)
            optimizer.zero_grad()
            cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 3, (16,))).backward()
            optimizer.step()
    assert loud(watch) == ["GRF001"]


@pytest.mark.parametrize("between", [lambda lower, x: lower(x).sigmoid(), lambda lower, x: lower(x).detach()])
def test_the_training_is_the_same_and_nothing_is_kept(between: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    kept: list[weakref.ref[Any]] = []
    begin = Examination.hear

    def hear(self: Examination, *given: Any) -> None:
        kept.append(weakref.ref(self._witness)) if self._witness is not None else None
        begin(self, *given)

    monkeypatch.setattr(Examination, "hear", hear)
    gc.disable()
    try:
        for watched in (False, True):
            torch.manual_seed(0)
            model = Net(lambda lower, x: nn.functional.dropout(between(lower, x), 0.3))
            _, losses = train(model, watched=watched)
            runs.append([*losses, *[float(p.detach().double().sum()) for p in model.parameters()]])
        assert kept and all(ref() is None for ref in kept)
    finally:
        gc.enable()
    assert runs[0] == runs[1]


def test_what_an_exception_leaves_is_nothing() -> None:
    model = Net(lambda lower, x: lower(x).relu())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, on_finding="silent") as watch:
        with pytest.raises(RuntimeError):
            model(torch.randn(2, 9))
        model(torch.randn(2, 8))  # and no backward
        optimizer.step()
        assert not torch._C._len_torch_function_stack()
    assert not torch._C._len_torch_function_stack() and not watch.failure
    assert torch.autograd._engine_run_backward.__module__ == "torch.autograd.graph"
    assert torch._tensor.has_torch_function_unary is torch.overrides.has_torch_function_unary
