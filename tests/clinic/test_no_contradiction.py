"""The headline follows from the findings: what is not finite, zero or out of bounds is never called healthy.

The models are random: depth, width, activation, gain, dtype and loss scale, and a defect that may be planted.
Nothing here knows which rule should speak; only that one must.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.core import depth
from unvanish.core.diagnosis import Diagnosis
from unvanish.probes import CheckError, ModelCrash
from unvanish.reports.diagnosis.headline import find_ledger, write_headline
from unvanish.rules import Rule, rules

ACTIVATIONS = (nn.Sigmoid, nn.Tanh, nn.ReLU, nn.GELU, nn.Softplus, nn.Hardtanh, nn.Identity)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


OPERATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.round, torch.sqrt, torch.log, lambda x: x / x.sum(-1, keepdim=True), lambda x: x.clamp(5, 6),
    lambda x: x * 0, lambda x: x.exp().exp(), lambda x: torch.relu(-x.abs()), lambda x: x.softmax(0),
    lambda x: (x * 100).softmax(-1), lambda x: x.detach(), lambda x: 1 / (x - x),
    lambda x: x.norm(dim=1, keepdim=True).expand_as(x),
    lambda x: x - x + 1, lambda x: x.sign(), lambda x: x ** 0.5, lambda x: x * 1e-8, lambda x: x * 1e8,
)  # fmt: skip


def draw(seed: int) -> tuple[nn.Module, tuple[Tensor, Tensor], Callable[..., Tensor]]:
    """A random network, mostly a sick one, its batch and its loss."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    width, layers = rng.choice([8, 16, 32]), rng.randint(1, 12)
    gain = 10 ** rng.uniform(-2, 2) if rng.random() < 0.5 else 1.0
    parts: list[nn.Module] = []
    kind = rng.choice(ACTIVATIONS)
    for _ in range(layers):
        parts += [nn.Linear(width, width), kind()]
        if rng.random() < 0.2:
            parts.append(nn.LayerNorm(width))
    if rng.random() < 0.6:
        parts.insert(rng.randrange(len(parts) + 1), Apply(rng.choice(OPERATIONS)))
    parts.append(nn.Linear(width, 3))
    net = nn.Sequential(*parts)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(gain)
        if rng.random() < 0.3:
            rng.choice([*net.parameters()]).fill_(rng.choice([0.0, 1e3, -1e3, math.nan, 1e-20]))
    dtype = rng.choice([torch.float32] * 4 + [torch.float64, torch.bfloat16, torch.float16])
    x, y, scale = (
        torch.randn(16, width).to(dtype),
        torch.randint(0, 3, (16,)),
        rng.choice([1.0, 1e-9, 1e6, 0.0]),
    )
    return net.to(dtype), (x, y), lambda out, y: scale * nn.functional.cross_entropy(out, y)


def find_contradictions(found: Diagnosis) -> list[str]:
    """What the numbers say and the findings do not."""
    trace, bad = found.trace, []
    top = write_headline(found, find_ledger(found))
    if (top.word in ("healthy", "unmeasured")) != found.healthy:
        bad.append(f"the headline says {top.word}, the findings {found.codes()}")
    if not found.healthy:
        return bad
    logs = [trace.value(i, "gradient_log") for i in trace.where("parameter", trainable=True, reachable=True)]
    if any(math.isnan(log) or log == math.inf for log in logs):
        bad.append("a gradient is not finite")
    if not logs:
        bad.append("the loss reaches no parameter")
    if logs and max(logs) == -math.inf and trace.facts["loss"] != 0:
        bad.append("no parameter gets a gradient")
    reading = depth.read(trace)
    if reading is not None and reading.severity == "error":
        bad.append(f"the depth is out of bounds by {reading.ratio:.1f} nats")
    return bad


def _examine(model: Any, batch: Any, loss: Any, **options: Any) -> list[str]:
    try:
        return find_contradictions(unvanish.check(model, batch, loss, confirm=False, **options))
    except CheckError as refused:
        assert str(refused)  # it says what is wrong, and judges nothing
        return []


@pytest.mark.parametrize("start", range(0, 120, 30))
def test_random_models_are_never_called_healthy_against_their_numbers(start: int) -> None:
    found = {seed: bad for seed in range(start, start + 30) if (bad := _examine(*draw(seed)))}
    assert not found


@pytest.mark.parametrize(
    "rule", [r for r in rules().values() if "history" not in r.needs], ids=lambda r: r.code
)
@pytest.mark.parametrize("which", ["sick", "healthy"])
def test_no_model_of_a_rule_is_called_healthy_against_its_numbers(rule: Rule, which: str) -> None:
    case = rule.case(which)
    assert not _examine(case.model, case.batch, case.loss, **case.options)


def test_a_model_that_crashed_is_not_healthy() -> None:
    with pytest.raises(ModelCrash) as caught:
        unvanish.check(nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 4)), torch.randn(2, 4))
    assert not Diagnosis((), caught.value.trace).healthy
