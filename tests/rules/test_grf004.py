"""GRF004 on traces written by hand: operations, products of zeros and losses that pass no gradient."""

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
from unvanish.rules._tiers import FLAT


def _build_trace(*sites: Site, loss: float | None = 1.0, gradients: dict[str, float] | None = None) -> Trace:
    """Sites of a step; `gradients`: ln of the gradient of a parameter, -inf if it is not named."""
    values = np.full((1, len(sites), len(STATISTICS)), np.nan)
    for i, site in enumerate(sites):
        log = (gradients or {}).get(site.path, -math.inf)
        values[0, i, list(STATISTICS).index("gradient_log")] = log
    return Trace(sites, values, (), {} if loss is None else {"loss": loss})


def _weight(name: str = "w", **more: Any) -> Site:
    facts: Any = {"trainable": True, "reachable": True, **more}
    return Site.parameter(name, "Linear", facts)


def _stop(name: str, kind: str, because: str, starved: int = 0, **more: Any) -> Site:
    facts: Any = {"kills": True, "kills_because": because, "starved": starved, **more}
    return Site.node(name, kind, 0, facts)


def _judge(*sites: Site, **more: Any) -> Finding:
    (found,) = rule("GRF004").check(_build_trace(*sites, **more))
    return found


def test_without_a_parameter_that_the_loss_reaches_nothing_is_judged() -> None:
    with pytest.raises(NotApplicable, match="reaches no parameter"):
        rule("GRF004").check(_build_trace(_weight(reachable=False), _stop("a", "round", "operation")))


@pytest.mark.parametrize("because", ["zero parameter", "dead"])
def test_zeros_at_the_start_and_dead_units_are_no_fault_of_an_operation(because: str) -> None:
    assert rule("GRF004").check(_build_trace(_weight(), _stop("a", "relu", because, 3))) == []


def test_an_operation_that_passes_on_what_it_gets_is_no_fault() -> None:
    passing = _stop("a", "round", "operation", kills=False)
    assert rule("GRF004").check(_build_trace(_weight(), passing)) == []


def test_the_operation_that_starves_most_is_named_first() -> None:
    found = _judge(
        *[_weight(f"w{k}") for k in range(4)],
        _weight("frozen", trainable=False),
        _stop("few", "round", "operation", 1),
        _stop("many", "layer_norm", "operation", 3),
    )
    assert found.severity == "error" and found.direction == "blocked"
    assert found.cause == (
        "layer_norm in many passes exactly no gradient: 3 of 4 parameters before it never learn"
    )
    assert found.sites == ("many", "few")
    assert [(e.value, e.unit, e.limit) for e in found.evidence] == [(3, "of 4", "0"), ("layer_norm", "", "")]
    assert found.weight == FLAT.weigh(0.75)


def test_starved_parameters_of_unknown_number_are_none() -> None:
    stop = Site.node("a", "round", 0, {"kills": True, "kills_because": "operation"})
    known = _stop("b", "sign", "operation", 1)
    assert _judge(_weight(trainable=False), stop).weight == FLAT.weigh(0.0)
    assert _judge(_weight(), stop, known).sites == ("b", "a")
    assert _judge(_weight(), known).weight == FLAT.weigh(1.0)
    assert _judge(_weight(), stop).evidence[0].value == 0


@pytest.mark.parametrize(
    ("kind", "function", "cures"),
    [
        ("round", "", ["straight-through"]),
        ("clamp", "", ["straight-through"]),
        ("sign", "", ["straight-through", "swap-activation"]),
        ("sgn", "", ["replace-operation", "swap-activation"]),
        ("softmax", "", ["replace-operation"]),
        ("MyFunction", "MyFunction", ["replace-operation"]),
    ],
)
def test_the_remedy_follows_the_operation(kind: str, function: str, cures: list[str]) -> None:
    stop = _stop("a", kind, "operation", 1, **({"function": function} if function else {}))
    found = _judge(_weight(), stop)
    assert [r.cure for r in found.remedies] == cures
    assert all(r.targets == ("a",) for r in found.remedies)
    assert ("its backward returns nothing" in found.remedies[0].why) == bool(function)


def test_two_zero_parameters_lock_each_other() -> None:
    stop = _stop("net.mul", "mul", "locked", 5, locked=("a", "b", "c"))
    again = _stop("net.other", "mul", "locked", 2, locked=("b", "d"))
    found = _judge(_weight(), stop, again)
    assert found.cause.startswith("a and b are both zero, which makes mul in net.mul flat")
    assert found.sites == ("net.mul", "net.other") and found.severity == "error"
    assert [(e.value, e.limit) for e in found.evidence] == [(4, "0"), (5, "0")]
    assert [(r.cure, r.targets) for r in found.remedies] == [
        ("reinitialise", ("a", "b")),  # of each product one factor stays at zero
        ("add-noise", ("a", "b")),
    ]
    assert dict(found.remedies[1].parameters) == {"std": 0.01}
    assert (found.direction, found.weight) == ("blocked", FLAT.weigh(0.0))


def test_parameters_that_a_product_of_zeros_starves_may_be_unknown() -> None:
    facts: Any = {"kills": True, "kills_because": "locked", "locked": ("a", "b")}
    assert _judge(_weight(), Site.node("mul", "mul", 0, facts)).evidence[1].value == 0


def test_a_product_that_passes_a_gradient_locks_nothing() -> None:
    passing = _stop("a", "mul", "locked", 2, locked=("a", "b"), kills=False)
    assert rule("GRF004").check(_build_trace(_weight(), passing)) == []


def test_a_remedy_lists_at_most_twelve_parameters() -> None:
    names = tuple(f"p{k}" for k in range(20))
    found = _judge(_weight(), _stop("a", "mul", "locked", 20, locked=names))
    assert found.remedies[0].targets == names[:12] and found.evidence[0].value == 20


def test_a_stop_in_the_network_goes_before_a_lock_and_a_lock_before_the_loss() -> None:
    operation, loss = _stop("a", "round", "operation", 1), _stop("loss", "floor", "loss", 1)
    locked = _stop("b", "mul", "locked", 1, locked=("p", "q"))
    assert _judge(_weight(), loss, locked, operation).sites == ("a",)
    assert _judge(_weight(), loss, locked).sites == ("b",)
    assert _judge(_weight(), loss).sites == ("loss",)


def test_a_flat_loss_leaves_no_parameter_a_gradient() -> None:
    found = _judge(
        _weight("a"),
        _weight("b"),
        _weight("frozen", trainable=False),
        _stop("l1", "floor", "loss", 1),
        _stop("l2", "sign", "loss", 2),
        loss=2.0,
        gradients={"frozen": 0.0},
    )
    assert found.severity == "error" and found.direction == "blocked"
    assert found.cause == "sign in the loss passes exactly no gradient: no parameter learns from this batch"
    assert [(e.value, e.unit) for e in found.evidence] == [(2, "of 2"), ("sign", ""), (2.0, "")]
    assert found.weight == FLAT.weigh(1.0)
    assert found.remedies[0].why.startswith("a loss with a slope")


def test_a_loss_of_zero_is_a_note() -> None:
    found = _judge(_weight(), _stop("l", "relu", "loss"), loss=0.0)
    assert found.severity == "note" and found.cause.endswith(", since its loss is 0")
    assert found.remedies[0].why.startswith("it may be at its minimum")


def test_a_loss_of_unknown_value_is_an_error() -> None:
    found = _judge(_weight(), _stop("l", "relu", "loss"), loss=None)
    assert found.severity == "error" and math.isnan(float(found.evidence[2].value))


@pytest.mark.parametrize("log", [-900.0, 0.0, math.nan])
def test_one_parameter_that_learns_clears_the_loss(log: float) -> None:
    trace = _build_trace(_weight("a"), _weight("b"), _stop("l", "floor", "loss"), gradients={"b": log})
    assert rule("GRF004").check(trace) == []


def test_parameters_that_the_loss_does_not_reach_say_nothing_about_it() -> None:
    found = _judge(
        _weight("a"), _weight("b", reachable=False), _stop("l", "floor", "loss"), gradients={"b": 0.0}
    )
    assert found.evidence[0].unit == "of 1"


def _chain(*zero: str) -> nn.Module:
    """Two normalised layers and a head; some parameters are set to zero."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Linear(16, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU()),
        nn.Linear(32, 4),
    )
    for name, p in net.named_parameters():
        if name in zero:
            p.data.zero_()
    return net


def _check_chain(*zero: str) -> list[Finding]:
    batch = torch.randn(32, 16), torch.randint(0, 4, (32,))
    found = unvanish.check(_chain(*zero), batch, nn.CrossEntropyLoss(), confirm=False).walk()
    return [f for f in found if f.code == "GRF004"]


def test_zero_gains_in_series_that_keep_each_other_are_named() -> None:
    for zero in (("1.weight", "4.weight"), ("1.weight",)):  # a ReLU is flat at 0, so one gain is enough
        (found,) = _check_chain(*zero)
        assert found.severity == "error" and zero[-1] in found.cause and "nothing moves there" in found.cause


@pytest.mark.parametrize("zero", [("6.weight",), ("3.weight", "6.weight")])
def test_a_zero_factor_that_gets_a_gradient_unlocks_what_is_behind_it(zero: tuple[str, ...]) -> None:
    assert _check_chain(*zero) == []


@pytest.mark.parametrize(("groups", "flat"), [(8, True), (4, False), (2, False)])
def test_a_normalisation_over_one_value_is_named(groups: int, flat: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.GroupNorm(groups, 8), nn.Flatten(), nn.Linear(8, 4))
    )
    batch = torch.randn(8, 3, 8, 8), torch.randint(0, 4, (8,))
    found = unvanish.check(net, batch, nn.CrossEntropyLoss(), confirm=False).findings
    assert any("over a single value" in f.cause for f in found if f.code == "GRF004") == flat


def _squeeze(kind: str, values: int, side: bool = False) -> list[Finding]:
    """A normalisation over some values, on the only path or on one of two."""
    torch.manual_seed(0)
    norm: dict[str, Any] = {
        "layer": lambda: nn.LayerNorm(values),
        "group": lambda: nn.GroupNorm(24 // values, 24),
        "batch": lambda: nn.BatchNorm1d(24),
    }
    width, batch = (values if kind == "layer" else 24), (values if kind == "batch" else 16)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(8, width), norm[kind](), nn.Linear(width, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            out: torch.Tensor = self.last(torch.relu(self.norm(h) + h if side else self.norm(h)))
            return out

    data = torch.randn(batch, 8), torch.randint(0, 4, (batch,))
    found = unvanish.check(Net(), data, nn.CrossEntropyLoss(), confirm=False).walk()
    return [f for f in found if f.code == "GRF004"]


@pytest.mark.parametrize("side", [False, True])
@pytest.mark.parametrize("kind", ["layer", "group", "batch"])
def test_a_normalisation_over_two_values_leaves_a_sign(kind: str, side: bool) -> None:
    (found,) = _squeeze(kind, 2, side)
    assert found.severity == ("note" if side and kind == "batch" else "warning")
    assert "normalises over two values, so its output is +1 and -1" in found.cause
    assert ("drop_last" in found.remedies[0].why) == (kind == "batch")


@pytest.mark.parametrize("kind", ["layer", "group", "batch"])
@pytest.mark.parametrize("values", [3, 8])
def test_a_normalisation_over_more_values_is_silent(kind: str, values: int) -> None:
    assert _squeeze(kind, values) == []


@pytest.mark.parametrize(("skips", "named"), [(False, True), (True, False)])
def test_gains_of_zero_on_every_path_are_named(skips: bool, named: bool) -> None:
    torch.manual_seed(0)

    class Stack(nn.Module):
        """Layers with gains of zero, with or without a way around them."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(3))
            self.norms = nn.ModuleList(nn.LayerNorm(12) for _ in range(3))
            for norm in self.norms:
                nn.init.zeros_(norm.weight)

        def forward(self, x: Tensor) -> Tensor:
            for layer, norm in zip(self.layers, self.norms, strict=True):
                h = torch.tanh(norm(layer(x)))
                x = x + h if skips else h
            return x

    batch = torch.randn(32, 12), torch.randint(0, 12, (32,))
    found = unvanish.check(Stack(), batch, nn.CrossEntropyLoss(), confirm=False).walk()
    own = [f for f in found if f.code == "GRF004"]
    assert bool(own) == named
    assert not named or ("norms.0.weight" in own[0].cause and own[0].severity == "warning")


def test_a_number_of_zero_beside_other_paths_is_a_note() -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"used": nn.Linear(8, 4), "spare": nn.Linear(8, 4)})

    class Both(nn.Module):
        """One layer, and another one times 0."""

        def __init__(self) -> None:
            super().__init__()
            self.parts = net

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.parts["used"](x) + 0.0 * self.parts["spare"](x)
            return out

    batch = torch.randn(32, 8), torch.randint(0, 4, (32,))
    (found,) = unvanish.check(Both(), batch, nn.CrossEntropyLoss(), confirm=False).walk()
    assert (found.code, found.severity) == ("GRF004", "note") and "the number 0" in found.cause


def test_a_gate_that_is_shut_is_named_with_the_product_that_it_shuts() -> None:
    class Highway(nn.Module):
        def __init__(self, bias: float) -> None:
            super().__init__()
            self.first, self.carry, self.new, self.last = (nn.Linear(16, 16) for _ in range(4))
            nn.init.constant_(self.carry.bias, bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            k = torch.sigmoid(self.carry(x))
            out: torch.Tensor = self.last(k * torch.tanh(self.new(x)) + (1 - k) * h)
            return out

    torch.manual_seed(0)
    batch = torch.randn(32, 16), torch.randn(32, 16)
    for bias, wrong in ((60.0, True), (-1.0, False)):
        found = unvanish.check(Highway(bias), batch, nn.MSELoss(), confirm=False, select=["GRF004"])
        assert ["sigmoid is driven to its end" in f.cause for f in found.at_least("warning")] == [
            True
        ] * wrong
