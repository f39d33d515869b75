"""A watch finds its optimizers, follows what runs, and says so if it saw nothing."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.probes.errors import CheckError


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def make_step(model: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 3, (16,))).backward()
    optimizer.step()


def loud(watch: Any) -> list[str]:
    return [f.code for f in watch.findings if f.severity != "note"]


def test_optimizers_are_found_when_they_step() -> None:
    model, other = net(), net()
    with unvanish.watch(model, on_finding="silent") as watch:
        optimizer, foreign = (torch.optim.Adam(m.parameters(), 1e-3) for m in (model, other))
        for _ in range(5):
            make_step(other, foreign)
            make_step(model, optimizer)
        assert watch.watched.optimizers == (optimizer,) and watch.steps == 5
    assert not watch.failure and not watch.notes and loud(watch) == []


def test_what_the_optimizer_that_turned_up_does_not_hold_is_said() -> None:
    model = net()
    with unvanish.watch(model, on_finding="silent") as watch:
        optimizer = torch.optim.Adam(model[2].parameters(), 1e-3)
        for _ in range(4):
            make_step(model, optimizer)
    assert loud(watch) == ["OPT004"]


def test_parameters_of_an_optimizer_that_was_not_named_are_optimised() -> None:
    model = net()
    optimizers = [torch.optim.SGD(model[i].parameters(), 0.1) for i in (0, 2)]
    with unvanish.watch(model, optimizers[1], on_finding="silent") as watch:
        for _ in range(4):
            optimizers[0].step()
            make_step(model, optimizers[1])
    assert loud(watch) == [] and watch.steps == 4


def test_an_unheld_watch_lives_with_the_optimizer_that_it_found() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = weakref.ref(unvanish.watch(model, on_finding="silent"))
    gc.collect()
    make_step(model, optimizer)
    gc.collect()
    assert watch() is not None and watch().steps == 1  # type: ignore[union-attr]
    again = weakref.ref(unvanish.watch(model, on_finding="silent"))
    assert watch() is None and again() is not None
    make_step(model, optimizer)
    del optimizer
    gc.collect()
    assert again() is None
    assert not sys.modules["torch.optim.optimizer"]._global_optimizer_pre_hooks


@pytest.mark.parametrize("seen", [False, True])
def test_a_watch_that_waits_in_vain_ends_with_its_model_when_another_training_begins(seen: bool) -> None:
    model, other = net(), net()
    watch, left = weakref.ref(unvanish.watch(model, on_finding="silent")), weakref.ref(model)
    if seen:
        model(torch.randn(5, 8)).sum().backward()
    make_step(other, torch.optim.SGD(other.parameters(), 0.1))
    gc.collect()
    assert watch() is not None and left() is not None  # somebody holds the model
    del model
    make_step(other, torch.optim.SGD(other.parameters(), 0.1))
    gc.collect()
    assert watch() is None and left() is None
    model = net()
    watch, left = weakref.ref(unvanish.watch(model, on_finding="silent")), weakref.ref(model)
    del model
    unvanish.watch(other, torch.optim.SGD(other.parameters(), 0.1), on_finding="silent").close()
    gc.collect()
    assert watch() is None and left() is None


@pytest.mark.parametrize("name", ["optimizer", "opt"])
def test_wrapped_optimizers_are_unwrapped(name: str) -> None:
    class Wrapper:
        """What libraries put around an optimizer."""

        def __init__(self, inner: Any) -> None:
            setattr(self, name, inner)

        @property
        def param_groups(self) -> Any:
            return getattr(self, name).param_groups

        def zero_grad(self) -> None:
            getattr(self, name).zero_grad()

        def step(self) -> None:
            getattr(self, name).step()

    model = net()
    wrapped = Wrapper(Wrapper(torch.optim.SGD(model.parameters(), 0.1)))
    with unvanish.watch(model, wrapped, on_finding="silent") as watch:
        for _ in range(3):
            make_step(model, wrapped)
    assert watch.steps == 3


def test_a_guard_works_within_a_closure_and_is_refused_for_a_line_search() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    poison = False

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(torch.randn(16, 8)).square().mean() * (float("nan") if poison else 1.0)
        loss.backward()
        return loss

    with unvanish.watch(model, on_finding=["silent", "guard"]) as watch:
        for step in range(6):
            poison = step == 4
            optimizer.step(closure)
    assert all(p.isfinite().all() for p in model.parameters())
    assert watch.response.clipper is not None and watch.response.clipper.skipped == 1
    with pytest.raises(CheckError, match="LBFGS"):
        unvanish.watch(model, torch.optim.LBFGS(model.parameters()), on_finding="guard")


def test_the_part_that_a_wrapper_calls_is_followed() -> None:
    class Module(nn.Module):
        """Has a training step of its own, as with Lightning."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.scale = net(), nn.Parameter(torch.ones(()))

        def training_step(self, x: Tensor, y: Tensor) -> Tensor:
            return nn.functional.cross_entropy(self.scale * self.net(x), y)

    module = Module()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    with unvanish.watch(module, every=1, on_finding="silent") as watch:
        for _ in range(4):
            optimizer.zero_grad()
            module.training_step(torch.randn(16, 8), torch.randint(0, 3, (16,))).backward()
            optimizer.step()
    assert watch.notes == ["the model itself was not called, so of its parts net is looked at"]
    assert any(s.path == "net.1" for s in watch.diagnosis().trace.sites) and loud(watch) == []


def test_it_says_that_it_saw_nothing(capsys: Any) -> None:
    model, other = net(), net()
    with unvanish.watch(model):
        make_step(other, torch.optim.SGD(other.parameters(), 0.1))
    assert "no step of Sequential was seen" in capsys.readouterr().err
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer):
        for _ in range(3):
            sum(p.square().sum() for p in model.parameters()).backward()  # type: ignore[union-attr]
            optimizer.step()
    assert "no forward of Sequential in training mode was seen" in capsys.readouterr().err


def test_a_part_that_runs_first_without_gradients_is_looked_at_when_it_has_some() -> None:
    torch.manual_seed(0)
    pair = nn.ModuleDict({
        "generator": nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 16)),
        "critic": nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)),
    })  # fmt: skip
    made, judge = pair["generator"], pair["critic"]
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.01) for part in (judge, made)]
    x, z = torch.randn(32, 16), torch.randn(32, 8)
    with unvanish.watch(pair, optimizers, every=1, on_finding="silent") as watch:
        for _ in range(4):
            for turn, optimizer in enumerate(optimizers):
                made.requires_grad_(turn == 1)
                judge.requires_grad_(turn == 0)
                optimizer.zero_grad()
                false = judge(made(z)).mean()
                (judge(x).mean() - false if turn == 0 else false).backward()
                optimizer.step()
    assert "so of its parts generator is looked at" in " ".join(watch.notes)
    assert any(s.path.startswith("generator.") for s in watch.diagnosis().trace.sites if s.role == "node")


@pytest.mark.parametrize("added", [True, False])
def test_what_is_trained_since_later_is_named(added: bool) -> None:
    model = net()
    first = list(model[0].parameters())
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[1:].parameters() if added else model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, on_finding="silent") as watch:
        for step in range(40):
            if step == 10:
                model[0].requires_grad_(True)
                if added:
                    optimizer.add_param_group({"params": first})
            make_step(model, optimizer)
    said = [note for note in watch.notes if note.startswith("trained since later, and not watched: ")]
    assert len(said) == 1 and "0.weight, 0.bias;" in said[0]
