"""GRF007: no gradient at all, none without a loss scale, and what is only rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish


def _data(width: int = 8) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(64, width), torch.randint(0, 3, (64,))


class Gated(nn.Module):
    """A trunk, and a branch whose weight is made of a gate by a function."""

    def __init__(self, use: Any) -> None:
        super().__init__()
        self.gate, self.branch, self.head = nn.Linear(8, 4), nn.Linear(8, 8), nn.Linear(8, 3)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x + torch.tanh(self.branch(x)) * self.use(self.gate(x)))
        return out


CONSTANT = {
    "a mean over one, subtracted": lambda z: z[:, :1].mean(1, keepdim=True) - z[:, :1] + 1,
    "the sum of a softmax": lambda z: z.softmax(-1).sum(-1, keepdim=True),
    "a softmax over one": lambda z: z[:, :1].softmax(-1),
    "normalised and squared": lambda z: nn.functional.normalize(z).square().sum(-1, keepdim=True),
    "divided by itself": lambda z: z[:, :1].exp() / z[:, :1].exp(),
    "the mean of a standardised gate": lambda z: 1 + nn.functional.layer_norm(z, (4,)).mean(-1, keepdim=True),
}  # fmt: skip
SMALL = {
    "a branch at 1e-6": lambda z: 1e-6 * z.mean(-1, keepdim=True),
    "a branch at 1e-10": lambda z: 1e-10 * z.mean(-1, keepdim=True),
    "a gate nearly shut": lambda z: torch.sigmoid(z.mean(-1, keepdim=True) - 16),
}


@pytest.mark.parametrize("use", CONSTANT.values(), ids=CONSTANT)
def test_a_gate_that_decides_nothing_is_named(use: Any) -> None:
    torch.manual_seed(1)
    found = unvanish.check(Gated(use), _data(), nn.CrossEntropyLoss())
    assert found.codes() and found.codes()[0] in ("GRF007", "GRF004")
    assert "gate" in str(found)


@pytest.mark.parametrize("use", SMALL.values(), ids=SMALL)
def test_what_is_meant_to_be_small_is_no_rounding(use: Any) -> None:
    torch.manual_seed(1)
    assert "GRF007" not in unvanish.check(Gated(use), _data(), nn.CrossEntropyLoss()).codes()


@pytest.mark.parametrize(
    "last", [lambda z: torch.relu(z - 1e3), lambda z: z.clamp(50, 60), lambda z: torch.exp(-z.abs() - 200)]
)
def test_an_output_that_has_no_slope_anywhere_is_an_error(last: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = last(self.body(x))
            return out

    x, _ = _data()
    found = unvanish.check(Net(), (x, x[:, :1] + 3), nn.MSELoss())
    assert found.at_least("error")
    assert not found.healthy


def test_a_loss_of_exactly_zero_is_noted() -> None:
    net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
    x, _ = _data()
    found = unvanish.check(net, x, lambda out: (out - 1e6).clamp(min=0).sum())
    assert found.healthy
    assert any(f.severity == "note" for f in found.findings)
    assert "healthy" not in str(found).splitlines()[0:4]


def test_parameters_in_float16_need_a_loss_scale_for_a_small_loss() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).half()
    x, y = _data()

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out.float(), y)

    assert unvanish.check(net, (x.half(), y), loss).healthy
    small = unvanish.check(net, (x.half(), y), lambda out, y: 1e-9 * loss(out, y))
    assert small.codes()[0] == "GRF007"
    assert small.findings[0].remedies[0].cure == "loss-scaling"


def test_a_bias_that_alone_learns_and_cancels_is_no_fault() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3))
    attention = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    for model in (net, attention):
        model[0].weight.requires_grad_(False)
        found = unvanish.check(model, _data(), nn.CrossEntropyLoss())
        assert "GRF007" not in found.codes()


class Scales(nn.Module):
    """A detector's two branches, of which a batch may use one alone."""

    def __init__(self, pick: Any) -> None:
        super().__init__()
        self.body, self.pick = nn.Linear(8, 16), pick
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 3)) for _ in "12"
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.body(x))
        chosen = torch.tensor([True, False]).expand(len(x), 2)
        out: Tensor = self.pick(torch.stack([branch(inner) for branch in self.branches], 1), chosen)
        return out


PICKED = {
    "by a mask": lambda every, chosen: every[chosen],
    "by where": lambda every, chosen: torch.where(chosen[..., None], every, 0.0).sum(1),
    "by a product": lambda every, chosen: (every * chosen[..., None]).sum(1),
    "by gather": lambda every, chosen: every.gather(
        1, chosen.long().argmax(1)[:, None, None].expand(-1, 1, 3)
    ).squeeze(1),
}


@pytest.mark.parametrize("pick", PICKED.values(), ids=PICKED)
def test_what_this_batch_does_not_select_is_no_fault(pick: Any) -> None:
    torch.manual_seed(0)
    assert "GRF007" not in unvanish.check(Scales(pick), _data(), nn.CrossEntropyLoss()).codes()
