"""ACT003 on traces written by hand: when silent units are dead, and when they only look it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import rule
from unvanish.rules._tiers import DEAD_LAYER, PART

Row = tuple[Site, dict[str, float]]


def _build_trace(*rows: Row, **facts: Any) -> Trace:
    values = np.full((1, len(rows), len(STATISTICS)), np.nan)
    for i, (_, numbers) in enumerate(rows):
        for name, number in numbers.items():
            values[0, i, list(STATISTICS).index(name)] = number
    made: Any = facts
    return Trace(tuple(site for site, _ in rows), values, (), made)


def _relu(name: str, dead: float, order: int = 9, **more: Any) -> Row:
    cosine = more.pop("cosine", math.nan)
    facts: Any = {"rectifier": True, "family": "activation", "order": order, "shape": (32, 64), **more}
    return Site.node(name, "relu", 0, facts), {"dead": dead, "cosine": cosine}


def _node(family: str, cosine: float, order: int, rms: float = 1.0) -> Row:
    facts: Any = {"family": family, "order": order}
    return Site.node(f"{family}{order}", family, 0, facts), {"cosine": cosine, "forward_rms": rms}


def _batch(cosine: float) -> Row:
    return Site.input("x", {}), {"cosine": cosine}


def _judge(*rows: Row, **settings: Any) -> Finding:
    (found,) = rule("ACT003").check(_build_trace(*rows), **settings)
    return found


def _is_silent(*rows: Row, **settings: Any) -> bool:
    return rule("ACT003").check(_build_trace(*rows), **settings) == []


@pytest.mark.parametrize(
    ("dead", "cosine", "severity"),
    [
        (0.50, 0.0, None),
        (0.51, 0.0, "warning"),
        (0.51, 0.94, "warning"),
        (0.51, 0.95, None),
        (0.90, 0.94, "warning"),
        (0.90, 0.95, None),
        (0.91, 0.95, "error"),
        (0.91, 0.999, "error"),
        (0.91, 0.9991, None),
    ],
)
def test_dead_units_count_if_the_samples_differ(dead: float, cosine: float, severity: str | None) -> None:
    found = rule("ACT003").check(_build_trace(_batch(cosine), _relu("a", dead)))
    assert [f.severity for f in found] == ([severity] if severity else [])


def test_the_limits_are_settings() -> None:
    assert _is_silent(_relu("a", 0.7), limit=0.7)
    assert _judge(_relu("a", 0.7), limit=0.69).evidence[0].limit == "< 0.69"
    assert _is_silent(_batch(0.5), _relu("a", 0.7), diverse=0.5)
    assert _judge(_batch(0.5), _relu("a", 0.7), diverse=0.51).evidence[1].limit == "< 0.51"


def test_no_rectifier_and_one_that_was_not_measured_are_not_judged() -> None:
    for rows in ((), (_relu("a", math.nan),), (_relu("a", 0.9, rectifier=False),)):
        with pytest.raises(NotApplicable, match="no rectifier"):
            rule("ACT003").check(_build_trace(*rows))


@pytest.mark.parametrize(
    ("few", "enough"), [((7, 64), (8, 64)), ((1, 64, 7, 1), (1, 64, 2, 4)), ((1, 7, 99), (2, 4, 99))]
)
def test_a_unit_must_be_seen_eight_times(few: tuple[int, ...], enough: tuple[int, ...]) -> None:
    with pytest.raises(NotApplicable, match="fewer than 8 samples"):
        rule("ACT003").check(_build_trace(_relu("a", 0.6, shape=few)))
    assert _judge(_relu("a", 0.6, shape=enough), _relu("b", 0.9, shape=few)).sites == ("a",)


def test_the_worst_comes_first_and_the_rest_is_counted() -> None:
    found = _judge(_relu("a", 0.6), _relu("b", 0.8), _relu("c", 0.1), _relu("d", 0.7))
    assert found.sites == ("b", "d", "a")
    assert found.cause.startswith("80% of the units of b never fire")
    assert [(e.value, e.unit) for e in found.evidence] == [(0.8, ""), (0.0, ""), (3, "of 4")]
    assert (found.direction, found.weight) == ("vanishing", PART.weigh(0.8))
    assert [r.targets for r in found.remedies] == [found.sites] * 3 + [()]


def test_a_rectifier_that_blocks_the_layers_before_it_is_an_error() -> None:
    found = _judge(_relu("a", 0.6, kills=True), _relu("b", 0.7))
    assert (found.severity, found.direction) == ("error", "blocked")
    assert found.weight == DEAD_LAYER.weigh(0.7)


def test_a_layer_without_a_living_unit_is_described_as_such() -> None:
    found = _judge(_relu("a", 1.0))
    assert found.cause == "no unit of a ever fires: nothing passes it, forward or backward"
    assert "never fire on this batch" in _judge(_relu("a", 0.99)).cause


def test_a_rectifier_that_is_given_zeros_is_not_to_blame() -> None:
    zeros, values = _node("layer", math.nan, 5, rms=0.0), _node("layer", math.nan, 4)
    assert _is_silent(zeros, values, _relu("a", 1.0))
    assert not _is_silent(zeros, values, _relu("a", 0.99))  # a bias gives some of the units a value
    assert not _is_silent(values, _node("layer", math.nan, 3, rms=0.0), _relu("a", 1.0))


def test_only_what_ran_before_it_counts() -> None:
    later, uncalled = _node("layer", math.nan, 10, rms=0.0), _node("layer", math.nan, -1, rms=0.0)
    itself = _relu("a", 1.0)
    itself[1]["forward_rms"] = 0.0
    assert not _is_silent(itself, later)
    assert not _is_silent(itself, uncalled)
    assert _is_silent(itself, _node("layer", math.nan, 0, rms=0.0))


def test_the_samples_are_compared_at_the_last_stage_before_it() -> None:
    rows = (
        _batch(0.1),
        _node("activation", 0.2, 3),
        _node("add", 0.3, 5),
        _node("norm", math.nan, 6),
        _node("layer", 0.4, 7),
        _node("activation", 0.5, 11),
    )
    assert _judge(*rows, _relu("a", 0.8)).evidence[1].value == 0.3
    assert _judge(*rows, _relu("a", 0.8, order=4)).evidence[1].value == 0.2
    assert _judge(*rows, _relu("a", 0.8, order=2)).evidence[1].value == 0.1


def test_of_several_inputs_the_most_diverse_counts() -> None:
    rows = _batch(0.9), _batch(math.nan), _batch(0.4)
    assert _judge(*rows, _relu("a", 0.8)).evidence[1].value == 0.4


@pytest.mark.parametrize("level", [0.05, 1.0])
def test_a_training_that_has_converged_is_not_judged(level: float) -> None:
    """Ten steps at a loss of 1, then thirty at `level`."""
    assert rule("ACT003").live
    loss = np.r_[np.ones(10), np.full(30, level)]
    trace = _build_trace(_relu("a", 0.8), live=True, history={"loss": loss})
    assert bool(rule("ACT003").check(trace)) == (level == 1.0)


class Shares(nn.Module):
    """What each of a few parts has of the whole."""

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.softplus(x)
        return h / h.sum(-1, keepdim=True)


class Far(nn.Module):
    """Places far from the origin."""

    def forward(self, x: Tensor) -> Tensor:
        return 5 + 0.3 * x


def behind(read: nn.Module, width: int, units: int = 32) -> nn.Module:
    """Layers at torch's own start; what the second one reads hardly differs between samples."""
    return nn.Sequential(
        nn.Linear(16, 8),
        nn.Tanh(),
        nn.Linear(8, width),
        read,
        nn.Linear(width, units),
        nn.ReLU(),
        nn.Linear(units, 4),
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (lambda: behind(nn.Softmax(-1), 6), (64, 16)),
        (lambda: behind(nn.Softmax(-1), 6, 16), (64, 16)),
        (lambda: behind(Shares(), 6), (64, 16)),
        (lambda: behind(Far(), 8), (64, 16)),
    ],
)
def test_units_behind_what_hardly_differs_are_off_or_on_by_their_sign(
    net: Any, shape: Any, seed: int
) -> None:
    torch.manual_seed(seed)
    batch = torch.randn(shape), torch.randint(0, 4, (64,))
    found = unvanish.check(net(), batch, nn.CrossEntropyLoss(), select=["ACT003"], confirm=False)
    assert found.codes("note") == ()


@pytest.mark.parametrize("places", [slice(0, 20), slice(0, 26)])
def test_units_that_were_pushed_down_are_found_behind_it_too(places: slice) -> None:
    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    net[0].bias.data[places] -= 8
    batch = torch.randn(64, 16), torch.randint(0, 4, (64,))
    found = unvanish.check(net, batch, nn.CrossEntropyLoss(), select=["ACT003"], confirm=False)
    assert found.codes() == ("ACT003",)


@pytest.mark.parametrize(("dead", "fires", "fault"), [(0.6, 0.39, False), (0.6, 0.2, True), (0.8, 0.2, True)])
def test_half_of_the_units_may_be_off_if_the_others_are_always_on(
    dead: float, fires: float, fault: bool
) -> None:
    row, numbers = _relu("r", dead, cosine=math.nan)
    numbers["slope_sq"] = fires
    assert _is_silent((row, numbers), _batch(0.2)) != fault


class Branch(nn.Module):
    """x + conv(relu(norm(conv(x)))); the norm's offset may silence the branch."""

    def __init__(self, width: int, norm: Any, offset: float) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.n = norm(width)
        nn.init.constant_(self.n.bias, offset)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.n(self.a(x))))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda width: nn.GroupNorm(2, width)])
@pytest.mark.parametrize(("width", "offset", "dead"), [(8, -50.0, True), (32, -200.0, True), (8, 0.0, False)])
def test_a_branch_that_its_norm_silences_is_dead_however_alike_the_offset_makes_all(
    norm: Any, width: int, offset: float, dead: bool
) -> None:
    torch.manual_seed(0)
    rows = [Branch(width, norm, offset if i == 1 else 0.0) for i in range(3)]
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1), *rows, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2)
    )
    batch = torch.randn(16, 3, 8, 8), torch.randint(0, 2, (16,))
    found = unvanish.check(net, batch, nn.CrossEntropyLoss(), confirm=False)
    assert ("ACT003" in found.codes()) == dead
    if not dead:
        assert found.codes() == ()
