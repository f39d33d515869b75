"""What a cure does not touch it keeps, bit for bit, in a model that is partly trained."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.prescription import apply
from unvanish.core.diagnosis import Remedy

CE = nn.CrossEntropyLoss()


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(32, 12)
    return x, x[:, :3].argmax(1)


class Mixed(nn.Module):
    """Modules, calls, a norm and a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Tanh())
        self.twice, self.norm, self.head = nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        h = torch.sigmoid(self.twice(torch.sigmoid(self.twice(h))))
        out: Tensor = self.head(self.norm(h))
        return out


def partly_trained() -> tuple[Mixed, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = Mixed()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        CE(net(batch()[0]), batch()[1]).backward()
        optimizer.step()
    return net, optimizer


LAYERS = ("body.0", "body.2", "twice", "head")
SITES = ("body.1", "body.3", "sigmoid", "sigmoid[1]")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cure", ["swap-activation", "reinitialise", "insert-normalisation"])
def test_layers_that_are_not_targets_stay_as_they_are(cure: str, seed: int) -> None:
    chance = random.Random(seed)
    net, optimizer = partly_trained()
    chosen = chance.sample(SITES if cure == "swap-activation" else LAYERS, 2)
    targets = tuple(f"{name}.weight" for name in chosen) if cure == "reinitialise" else tuple(chosen)
    settings: dict[str, Any] = {"insert-normalisation": {"kind": "layer"}}.get(cure, {})
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    moments = {p: {k: torch.clone(v) for k, v in s.items()} for p, s in optimizer.state.items()}
    same = dict(net.named_parameters())
    apply(net, [Remedy(cure, targets, "", "retrain", settings)], optimizer=optimizer)
    redrawn = {p for name in chosen for p in (f"{name}.weight", f"{name}.bias")}
    for name, value in before.items():
        assert same[name] is net.get_parameter(name)
        touched = cure == "reinitialise" and name in redrawn
        assert torch.equal(value, net.get_parameter(name)) is not touched, name
        held = optimizer.state[net.get_parameter(name)]
        assert all(torch.equal(v, held[k]) for k, v in moments[net.get_parameter(name)].items())


class LowRank(nn.Module):
    """A frozen layer with a low-rank part; `form`: how the product is written."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.layer, self.form = nn.Linear(12, 16).requires_grad_(False), form
        self.lora_b = nn.Parameter(torch.zeros(16, 4))
        self.lora_a = nn.Parameter(torch.zeros(4, 12))

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "step by step":
            low = x @ self.lora_a.T @ self.lora_b.T
        elif self.form == "linear":
            low = nn.functional.linear(nn.functional.linear(x, self.lora_a), self.lora_b)
        else:
            low = nn.functional.linear(x, self.lora_b @ self.lora_a)
        out: Tensor = self.layer(x) + low
        return out


@pytest.mark.parametrize("form", ["step by step", "linear", "product first"])
def test_of_a_low_rank_part_at_zero_the_first_factor_is_redrawn(form: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(LowRank(form), nn.ReLU(), nn.Linear(16, 3).requires_grad_(False))
    cured = unvanish.cure(net, batch(), CE, steps=20)
    assert cured.success, cured.reason
    assert [(r.cure, r.targets) for r in cured.prescription.remedies] == [("reinitialise", ("0.lora_a",))]
    new = cured.model.get_parameter("0.lora_a").detach()
    assert float(new.std()) == pytest.approx(12**-0.5, rel=0.3)
    assert not cured.model.get_parameter("0.lora_b").any()
    assert torch.equal(cured.model.get_parameter("0.layer.weight"), net.get_parameter("0.layer.weight"))
