"""INI003 on traces written by hand: how many units are twins, and whether they stay so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.facts import ParameterFacts
from unvanish.core.trace import Site, Trace
from unvanish.rules import rule

STAY: ParameterFacts = {"trainable": True, "twins_stay": True}
PART: ParameterFacts = {"trainable": True, "twins_stay": False}
FROZEN: ParameterFacts = {"trainable": False, "twins_stay": True}


def _judge(*weights: tuple[float, ParameterFacts], **settings: float) -> list[Finding]:
    sites = tuple(Site.parameter(f"w{i}", "Linear", facts) for i, (_, facts) in enumerate(weights))
    values = np.array([[[share] for share, _ in weights]]).reshape(1, len(weights), 1)
    return rule("INI003").check(Trace(sites, values, statistics=("weight_twins",)), **settings)


def test_twins_are_named_the_most_first() -> None:
    (found,) = _judge((0.3, STAY), (0.1, STAY), (0.5, STAY), (0.9, PART), (1.0, FROZEN))
    assert found.severity == "error" and found.direction == "none" and found.sites == ("w2", "w0")
    assert found.cause.startswith("50% of the units of w2 equal another unit")
    share, count = found.evidence
    assert (share.value, share.limit, share.site) == (0.5, "< 0.2", "w2") and count.value == 2
    assert found.weight == pytest.approx(4.5)
    assert [(r.cure, r.targets) for r in found.remedies] == [
        ("reinitialise", ("w2", "w0")), ("add-noise", ("w2", "w0")),
    ]  # fmt: skip
    assert found.remedies[1].parameters == {"std": 0.01}


@pytest.mark.parametrize(("share", "fires"), [(0.2, False), (0.21, True)])
def test_a_fifth_of_the_units_may_be_twins(share: float, fires: bool) -> None:
    assert bool(_judge((share, STAY))) == fires
    assert bool(_judge((share + 0.3, STAY), limit=0.5)) == fires
    assert _judge((share, PART)) == []


@pytest.mark.parametrize("weights", [[], [(math.nan, STAY)], [(0.9, FROZEN)]])
def test_without_a_trainable_matrix_there_is_nothing_to_judge(
    weights: list[tuple[float, ParameterFacts]],
) -> None:
    with pytest.raises(NotApplicable, match="no trainable weight matrix"):
        _judge(*weights)


def test_a_constant_of_that_shape_is_no_projection() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.spread = nn.Linear(8, 24), nn.Parameter(torch.full((24, 8), -4.0))
            self.last = nn.Linear(24, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            noise = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
            weight = self.mean.weight + nn.functional.softplus(self.spread) * noise
            out: torch.Tensor = self.last(torch.tanh(nn.functional.linear(x, weight, self.mean.bias)))
            return out

    torch.manual_seed(0)
    batch = torch.randn(32, 8), torch.randn(32, 2)
    assert unvanish.check(Noisy(), batch, nn.MSELoss(), confirm=False, select=["INI003"]).codes() == ()


@pytest.mark.parametrize(("copies", "fires"), [(3, True), (2, False), (0, False)])
def test_a_packed_projection_of_equal_thirds_is_named(copies: int, fires: bool) -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
    weight = model.self_attn.in_proj_weight
    if copies == 0:
        nn.init.zeros_(weight[:16])
    with torch.no_grad():
        for k in range(1, copies):
            weight[16 * k : 16 * (k + 1)] = weight[:16]
    found = [*unvanish.check(model, torch.randn(8, 5, 16), confirm=False).walk()]
    assert [f.severity for f in found if f.code == "INI003"] == ["warning"] * fires


def test_gates_that_begin_alike_are_no_attention() -> None:
    torch.manual_seed(0)
    model = nn.GRUCell(16, 16)
    with torch.no_grad():
        model.weight_hh.copy_(model.weight_hh[:16].repeat(3, 1))
    found = [*unvanish.check(model, torch.randn(8, 16), confirm=False).walk()]
    assert not [f for f in found if f.code == "INI003"]


@pytest.mark.parametrize("constant", [True, False])
def test_equal_weights_through_which_the_gradient_cancels_are_named(constant: bool) -> None:
    """The biases differ, so no units are twins; what the classes send back adds up to zero."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.Sigmoid(), nn.Linear(32, 4))
    if constant:
        for layer in (net[0], net[2]):
            nn.init.constant_(layer.weight, 0.5)
    batch = torch.randn(64, 16), torch.randint(0, 4, (64,))
    assert unvanish.check(net, batch, nn.CrossEntropyLoss()).codes()[:1] == (("INI003",) if constant else ())


class Sum(nn.Module):
    """Layers side by side, added up."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(8, 8) for _ in range(parts)])
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(torch.stack([torch.tanh(part(x)) for part in self.parts]).sum(0))
        return found


@pytest.mark.parametrize(("deep", "copies"), [(False, 12), (True, 0)])
def test_copies_are_found_without_comparing_each_with_each(
    deep: bool, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of layers that begin alike, those side by side are pulled alike, those one after another are not."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(12)], nn.Linear(8, 3)) if deep else Sum(12)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 8]
    start = torch.eye(8) + 0.1 * layers[0].weight.detach()
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(start)
            layer.bias.zero_()
    compared: list[torch.Tensor] = []

    def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
        compared.append(one)
        return bool((one == other).all())

    monkeypatch.setattr("unvanish.probes.parameters.torch.equal", equal)
    found = [*unvanish.check(model, (torch.randn(16, 8), torch.arange(16) % 3), nn.CrossEntropyLoss()).walk()]
    assert [len(f.sites) for f in found if f.code == "INI003"] == ([copies] if copies else [])
    assert len([x for x in compared if x.shape == (8, 8)]) < 2 * 12
