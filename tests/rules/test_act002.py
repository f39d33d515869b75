"""ACT002 on chains written by hand: activations whose slope loses the gradient, without saturation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.rules import rule

LAYERS = 6


def _build_chain(slopes: list[float], saturated: list[float] | None = None) -> Trace:
    """Linear layers of unit gain; the activation after each multiplies the gradient by its slope."""
    sites, numbers, log = [], [], 0.0
    for k, slope in enumerate(slopes):
        layer: Any = {"simple": True, "row_layers": 1, "cut": True, "family": "layer"}
        unit: Any = {"simple": True, "cut": True, "family": "activation"}
        share = math.nan if saturated is None else saturated[k]
        sites += [Site.node(f"l{k}", "linear", 0, layer), Site.node(f"a{k}", "sigmoid", 0, unit)]
        numbers += [
            {"backward_log": log, "weight_log": 0.0},
            {"backward_log": log, "slope_sq": slope**2, "saturated": share},
        ]
        log += math.log(slope)
    sites.append(Site.node("x", "linear", 0, {"cut": True}))
    numbers.append({"backward_log": log})
    values = np.full((1, len(sites), len(STATISTICS)), np.nan)
    for i, known in enumerate(numbers):
        for name, number in known.items():
            values[0, i, list(STATISTICS).index(name)] = number
    return Trace(tuple(sites), values, (Axis("x", "depth", tuple(range(len(sites)))),))


def _judge(trace: Trace, **settings: float) -> list[Finding]:
    return rule("ACT002").check(trace, **settings)


def test_sigmoids_of_equal_slope_are_named_with_it() -> None:
    """Six layers behind the output layer: five sigmoids of slope 0.2 between them lose 5 ln 5 nats."""
    (found,) = _judge(_build_chain([0.2] * (LAYERS + 1)))
    assert found.severity == "error" and found.direction == "vanishing"
    assert found.weight == pytest.approx(5 * math.log(5.0))
    assert "because sigmoid keeps 0.200 of it a layer, unsaturated" in found.cause
    assert found.evidence[2].value == pytest.approx(0.2)
    assert found.evidence[2].limit == "> 0.37"
    assert found.sites == ("a1", "a2", "a3", "a4", "a5")


@pytest.mark.parametrize(("each", "severity"), [(0.56, None), (0.34, "warning"), (0.29, "error")])
def test_the_severity_follows_the_nats_that_are_lost(each: float, severity: str | None) -> None:
    """ln 0.56 = -0.58: 2.9 nats in five; ln 0.34 = -1.08: 5.4 nats; ln 0.29 = -1.24: 6.2 nats."""
    found = _judge(_build_chain([each] * (LAYERS + 1)))
    assert [f.severity for f in found] == ([severity] if severity else [])


def test_a_wider_limit_makes_it_silent() -> None:
    trace = _build_chain([0.34] * (LAYERS + 1))
    assert _judge(trace, limit=5.3)[0].evidence[0].limit == "+-5.3"
    assert _judge(trace, limit=5.5) == []


def test_steep_activations_at_some_places_are_counted() -> None:
    """The mean over them is the geometric one: sqrt(0.1 * 0.025) = 0.05; the worst comes first."""
    (found,) = _judge(_build_chain([1.0, 1.0, 0.1, 1.0, 0.025, 1.0, 1.0]))
    assert "keeps 0.050 of it at each of 2 places" in found.cause
    assert found.sites == ("a4", "a2")


def test_the_largest_known_share_of_saturated_units_is_shown() -> None:
    shares = [0.9, 0.1, 0.3, math.nan, 0.2, 0.1, 0.9]
    (found,) = _judge(_build_chain([0.2] * 7, shares))
    assert (found.evidence[3].value, found.evidence[3].limit) == (0.3, "< 0.5")
    (unknown,) = _judge(_build_chain([0.2] * 7))
    assert len(unknown.evidence) == len(found.evidence) - 1


def test_saturated_activations_are_not_its_business() -> None:
    assert _judge(_build_chain([0.2] * 7, [0.9] * 7)) == []


def test_two_hidden_layers_are_needed() -> None:
    with pytest.raises(NotApplicable, match="fewer than two hidden layers"):
        _judge(_build_chain([0.2, 0.2]))


@pytest.mark.parametrize("factor", [1e-6, 1e-3])
def test_a_small_factor_is_no_activation(factor: float) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.c(torch.tanh(self.b(torch.tanh(self.a(x)) * factor)))
            return out

    torch.manual_seed(0)
    batch = torch.randn(64, 16), torch.randint(0, 4, (64,))
    found = unvanish.check(Scaled(), batch, nn.CrossEntropyLoss(), confirm=False).findings[0]
    assert found.code == "ACT002" and "mul scales it by" in found.cause and "mul" in found.sites[0]
    assert found.remedies[0].cure == "drop-factor"


def test_one_softmax_is_a_distribution_of_latent_classes() -> None:
    class Latent(nn.Module):
        def __init__(self, softmaxes: int) -> None:
            super().__init__()
            self.rows = nn.ModuleList(nn.Linear(24, 24) for _ in range(7))
            self.softmaxes = softmaxes

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i, row in enumerate(self.rows[:-1]):
                x = row(x)
                x = x.view(-1, 3, 8).softmax(-1).flatten(1) if 0 < i <= self.softmaxes else torch.tanh(x)
            x = self.rows[-1](x)
            return x

    torch.manual_seed(0)
    batch = torch.randn(32, 24), torch.randn(32, 24)
    one, five = (unvanish.check(Latent(n), batch, nn.MSELoss(), confirm=False) for n in (1, 5))
    assert "ACT002" not in one.codes("warning")
    assert "ACT002" in five.codes("warning")
