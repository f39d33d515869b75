"""The facts of steps, as the theory reads them from a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unvanish.probes.program.outline import outline
from unvanish.theory.convolution import Geometry
from unvanish.theory.program.steps import Step


class Net(nn.Module):
    """One function of a linear layer's result and of parameters."""

    def __init__(self, function: Any, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function, self.first = function, nn.Linear(8, 8)
        self.own = nn.ParameterList(nn.Parameter(torch.full(shape, 2.0)) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.first(x), *self.own)


def step_of(kind: str, function: Any, *shapes: tuple[int, ...]) -> Step:
    """The last step of this kind that the theory is given."""
    steps = outline(Net(function, *shapes), torch.randn(4, 8)).program.steps
    return next(step for step in reversed(steps) if step.kind == kind)


def flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with their settings among them."""
    return {k: v for k, v in facts.items() if k != "settings"} | dict(facts.get("settings", {}))


@pytest.mark.parametrize(
    ("kind", "function", "shapes", "facts"),
    [
        ("add", lambda h: h + 3, (), {"power": 9.0, "mean": 3.0, "number": 3}),
        ("add", lambda h, p: h + p, [(8,)], {"power": 4.0, "mean": 2.0}),
        ("add", lambda h: h + h.tanh(), (), {}),
        ("sub", lambda h: h - 3, (), {"power": 9.0, "mean": -3.0}),
        ("mul", lambda h: h.mul(other=3), (), {"power": 9.0, "mean": 3.0, "number": 3}),
        ("div", lambda h: h / 4, (), {"power": 1 / 16, "mean": 4.0, "number": 0.25}),
        ("div", lambda h, p: p / h, [(8,)], {"power": 1.0, "mean": 0.0}),
        ("reciprocal", lambda h: 1 / h, (), {"settings": {}}),
        ("pow", lambda h: torch.pow(h, exponent=3), (), {"settings": {"exponent": 3.0}}),
        ("clamp", lambda h: torch.clamp(h, -1, max=2), (), {"settings": {"min": -1.0, "max": 2.0}}),
        ("clamp", lambda h: h.clamp(max=2), (), {"settings": {"max": 2.0}}),
        ("clamp_min by a tensor", lambda h: h.clamp_min(h.detach()), (), {}),
        ("elu", lambda h: F.elu(h, alpha=0.5), (), {"settings": {"alpha": 0.5}, "peak": None}),
        (
            "leaky_relu",
            lambda h, p: F.prelu(h, p),
            [(1,)],
            {"settings": {"negative_slope": 2.0}, "peak": None},
        ),
        ("max_pool1d", lambda h: F.max_pool1d(h[:, None], 2), (), {"window": 2}),
        ("adaptive_avg_pool1d", lambda h: F.adaptive_avg_pool1d(h[:, None], 2), (), {"window": 4.0}),
        ("avg_pool1d", lambda h, p: F.avg_pool1d(p, 2).mean() + h, [(1, 1, 8)], {"window": 2}),
        (
            "group_norm",
            lambda h: F.group_norm(h, 2, eps=1e-3),
            (),
            {"gain": 1.0, "shift": 0.0, "eps": 1e-3, "groups": 2},
        ),
        (
            "rms_norm",
            lambda h, p: F.rms_norm(h, (8,), p),
            [(8,)],
            {"gain": 4.0, "shift": 0.0, "eps": 1e-5, "elements": 8},
        ),
    ],
)
def test_the_facts_of_a_step(kind, function, shapes, facts):
    assert flat(step_of(kind, function, *shapes).facts) == pytest.approx(flat(facts))


@pytest.mark.parametrize(
    ("function", "shape", "geometry"),
    [
        (
            lambda h, w: F.conv1d(h[:, None], w, stride=2, padding=1),
            (3, 1, 3),
            Geometry((2,), ((1, 1),), (1,)),
        ),
        (
            lambda h, w: F.conv1d(h[:, None], w, padding="same", dilation=3),
            (3, 1, 2),
            Geometry((1,), ((1, 2),), (3,)),
        ),
        (lambda h, w: F.conv1d(h[:, None], w, padding="valid"), (3, 1, 3), Geometry((1,), ((0, 0),), (1,))),
        (
            lambda h, w: F.conv_transpose1d(h[:, None], w, None, 2, 1, 1, dilation=2),
            (1, 3, 3),
            Geometry((2,), ((1, 0),), (2,)),
        ),
    ],
)
def test_the_geometry_of_a_convolution(function, shape, geometry):
    kind = "conv_transpose1d" if geometry.padding == ((1, 0),) else "conv1d"
    assert step_of(kind, function, shape).facts["geometry"] == geometry


def test_a_layer_is_known_by_its_squared_weights():
    facts = step_of("linear", lambda h, w, b: F.linear(h, weight=w, bias=b), (5, 8), (5,)).facts
    assert facts == pytest.approx({"taps": 8 * 4.0, "bias_power": 4.0, "bias_mean": 2.0})


def test_a_product_is_a_layer_if_a_factor_is_a_parameter():
    assert step_of("linear", lambda h, w: h @ w, (8, 5)).facts["taps"] == pytest.approx(8 * 4.0)
    assert step_of("matmul", lambda h: h @ h.T).facts == {}
