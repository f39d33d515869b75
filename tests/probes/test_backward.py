"""Gradients kept and read together tell what hooks tell; where they cannot, hooks take over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish
from unvanish.core.trace import Trace
from unvanish.probes import backward, record


class Branches(nn.Module):
    """Several outputs of one node of which one is not used, a shared weight, an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        first, second, _ = self.a(x).chunk(3, -1)
        return self.b(self.b(torch.tanh(first)) + second)


class Reader(nn.Module):
    """A recurrent layer read at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.core, self.head = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x)[0][:, -1])


def chain(depth: int, gain: float) -> nn.Sequential:
    net = nn.Sequential(*[p for _ in range(depth) for p in (nn.Linear(8, 8), nn.Tanh())])
    for p in net.parameters():
        nn.init.normal_(p, std=gain / 8**0.5)
    return net


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "chain": (lambda: chain(6, 1.0), (16, 8)),
    "faint": (lambda: chain(400, 0.3), (16, 8)),
    "branches": (Branches, (16, 8)),
    "recurrent": (Reader, (4, 5, 8)),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()), (4, 3, 6, 6)),
    "dead": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Hardtanh(5, 6), nn.Linear(8, 2)), (16, 8)),
}


def seen(case: str, monkeypatch: pytest.MonkeyPatch, light: int) -> tuple[Trace, list[bool]]:
    build, shape = CASES[case]
    torch.manual_seed(0)
    model, x = build(), torch.randn(shape)
    hooked: list[bool] = []
    own = backward.Backward._run_with_hooks

    def noted(self: backward.Backward, loss: Tensor, leaves: list[Tensor], inspect: bool) -> object:
        hooked.append(inspect)
        return own(self, loss, leaves, inspect)

    with monkeypatch.context() as patch:
        patch.setattr(backward, "LIGHT", light)
        patch.setattr(backward.Backward, "_run_with_hooks", noted)
        return record(model, x, lambda y: F.mse_loss(y, torch.ones_like(y))), hooked


@pytest.mark.parametrize("case", CASES)
def test_kept_gradients_tell_what_hooks_tell(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, hooked = seen(case, monkeypatch, backward.LIGHT)
    watched, _ = seen(case, monkeypatch, 0)
    assert kept.sites == watched.sites
    assert kept.axes == watched.axes
    np.testing.assert_allclose(kept.values, watched.values, rtol=1e-12, atol=1e-12)
    assert bool(hooked) == (case in ("faint", "dead"))  # what had to be multiplied, or was zero


def test_a_large_model_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backward, "LIGHT", 16 * 8)
    _, hooked = seen("chain", monkeypatch, backward.LIGHT)
    assert hooked == [False]


def test_half_precision_overflows_only_where_the_training_does() -> None:
    """Gradients of 24,000 tiny parts: multiplied for our own reading, their sum would leave float16."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(torch.relu(self.first(x)).float().mean(1).half())
            return out

    torch.manual_seed(0)
    model, x = Pooled().half(), torch.randn(6, 4096, 8).half().abs() * 60
    found = unvanish.check(
        model,
        (x, torch.arange(6) % 3),
        lambda o, y: nn.functional.cross_entropy(o.float(), y),
        select=["NUM001"],
    )
    assert found.codes() == ()
