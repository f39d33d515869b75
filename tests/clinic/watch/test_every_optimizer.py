"""Whatever optimizer steps, its settings of any type, it can be watched and checked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish

SPARSE_OR_MATRICES = ("Optimizer", "SparseAdam", "Muon")
KINDS = [
    k for k in vars(torch.optim).values() if isinstance(k, type) and issubclass(k, torch.optim.Optimizer)
]


class OwnRate(torch.optim.Optimizer):
    """Its rate comes of itself, its other settings are no numbers."""

    def __init__(self, params: Any) -> None:
        settings = {"lr": None, "eps": (1e-30, 1e-3), "weight_decay": None, "momentum": "none", "betas": None}
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=0.01)


@pytest.mark.parametrize(
    "kind", [OwnRate, *(k for k in KINDS if k.__name__ not in SPARSE_OR_MATRICES)], ids=lambda k: k.__name__
)
def test_it_is_watched_and_checked(kind: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    optimizer = kind(model.parameters())
    unvanish.check(model, (x, y), nn.CrossEntropyLoss(), optimizer=optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
        for _ in range(6):
            optimizer.step(closure)
    assert watch.steps == 6 and not watch.failure
