"""An optimizer that calls a closure is watched as any other if it calls it once, before it moves a weight."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unvanish

X = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
Y = X[:, :4].argmax(1)


class Ascending(torch.optim.Optimizer):
    """Moves its weights up the old gradient, asks for the new one there, and steps from where it was."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: Any = None) -> Any:
        weights = self.param_groups[0]["params"]
        moved = [torch.zeros_like(p) if p.grad is None else 0.01 * p.grad for p in weights]
        with torch.no_grad():
            torch._foreach_add_(weights, moved)
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            torch._foreach_sub_(weights, moved)
            torch._foreach_sub_(weights, [0.1 * p.grad for p in weights])
        return loss


def train(
    make: Callable[..., Any], by: str = "keyword", broken: int = -1, clip: float = 0.0, ways: Any = None
) -> Any:
    """Ten steps; the losses, the weights, the watch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = make(model.parameters())
    watch = unvanish.watch(model, optimizer, every=2, on_finding=ways) if ways else None
    losses = []
    for step in range(10):

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            x = X * torch.nan if step == broken else X
            loss = nn.functional.cross_entropy(model(x), Y)
            loss.backward()  # type: ignore[no-untyped-call]
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            return loss

        given = {"closure": closure} if by == "keyword" else {}
        value = optimizer.step(**given) if given else optimizer.step(closure)
        losses.append(float(value.detach()))
    if watch is not None:
        watch.close()
    return losses, [p.detach().clone() for p in model.parameters()], watch


def sgd(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("by", ["keyword", "position"])
def test_one_call_is_a_step_like_any_other(by: str) -> None:
    alone, watched = train(sgd, by), train(sgd, by, clip=0.0, ways="silent")
    assert watched[0] == alone[0]
    assert all(map(torch.equal, watched[1], alone[1]))
    watch = watched[2]
    assert watch.findings == []
    history = watch.history.steps.columns()
    assert history["loss"].tolist() == pytest.approx(watched[0])
    assert np.isfinite(history["norm_log"]).all()
    assert watch.diagnosis().trace.facts["plan"]["planned"] > 0  # read before the step, from its gradients


def test_clipping_within_the_closure_is_seen() -> None:
    watch = train(sgd, clip=0.05, ways="silent")[2]
    history = watch.history.steps.columns()
    assert history["clipped"].all()
    assert torch.allclose(
        torch.from_numpy(history["norm_log"]).exp(), torch.tensor(0.05, dtype=torch.float64), rtol=1e-3
    )


def test_a_guard_names_what_it_leaves_out() -> None:
    losses, weights, watch = train(sgd, broken=4, ways=("silent", "guard"))
    assert [f.code for f in watch.findings] == ["NUM001"]
    assert all(bool(w.isfinite().all()) for w in weights)
    assert [k for k, loss in enumerate(losses) if loss != loss] == [4]


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4), lambda p: Ascending(p, lr=0.1)],
    ids=["LBFGS", "ascending"],
)
def test_who_calls_it_again_or_moved_before_is_left_alone(make: Callable[..., Any]) -> None:
    alone, watched = train(make), train(make, ways="silent")
    assert watched[0] == alone[0]
    assert all(map(torch.equal, watched[1], alone[1]))
    assert watched[2].steps == 10
    assert not watched[2].failure


def test_an_exception_of_the_closure_passes_and_copies_hold_no_watch() -> None:
    model = nn.Linear(16, 4)
    optimizer = sgd(model.parameters())
    watch = unvanish.watch(model, optimizer, on_finding="silent")

    def fail() -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimizer.step(fail)
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        other.step(lambda: torch.zeros(()))
    assert watch.steps == 0
    assert not watch.failure
    watch.close()
