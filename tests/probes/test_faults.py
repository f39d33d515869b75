"""Where gradients end: in functions that somebody wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish


class Nothing(torch.autograd.Function):
    """Passes its input on, and no gradient back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> None:
        return None


class Through(torch.autograd.Function):
    """Rounds, with a gradient as if it did not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Written(nn.Module):
    """Two layers around functions of one's own."""

    def __init__(self, *functions: Any) -> None:
        super().__init__()
        self.functions = functions
        self.first, self.last = nn.Linear(12, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = 4 * torch.relu(self.first(x))
        for function in self.functions:
            h = function.apply(h)
        return self.last(h)  # type: ignore[no-any-return]


def check(*functions: Any) -> unvanish.Diagnosis:
    torch.manual_seed(0)
    batch = torch.randn(16, 12), torch.randint(0, 5, (16,))
    return unvanish.check(Written(*functions), batch, nn.CrossEntropyLoss())


def test_a_backward_that_returns_nothing_is_named() -> None:
    found = check(Through, Nothing)
    assert found.codes() == ("GRF004",)
    finding = found.findings[0]
    assert finding.cause.startswith("Nothing in (model)") and "2 of 4 parameters" in finding.cause
    assert "return what each input" in finding.remedies[0].why
    stopping = [s for s in found.trace.sites if s.facts.get("kills")]
    assert [s.kind for s in stopping] == ["Nothing"]  # and not the other one of the same module


def test_its_parameters_have_exactly_no_gradient() -> None:
    trace = check(Nothing).trace
    logs = {trace.sites[i].path: trace.value(i, "gradient_log") for i in trace.where("parameter")}
    assert logs["first.weight"] == logs["first.bias"] == -float("inf")
    assert logs["last.weight"] > -20


def test_a_function_with_a_gradient_is_left_alone() -> None:
    found = check(Through)
    assert not found.codes()
    assert "Through" in [s.kind for s in found.trace.sites]


def test_a_normalisation_of_one_number_is_named_though_its_shift_is_zero() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 1), nn.LayerNorm(1), nn.Linear(1, 5))
    batch = torch.randn(16, 12), torch.randint(0, 5, (16,))
    found = unvanish.check(net, batch, nn.CrossEntropyLoss()).findings[0]
    assert found.code == "GRF004"
    assert found.cause.startswith("layer_norm in 3 normalises over a single value")


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "round": lambda o, y: (o.softmax(-1).round() - F.one_hot(y, 5)).abs().mean(),
    "sign": lambda o, y: (torch.sign(o[:, 0]) - 2).square().mean(),
    "mul": lambda o, y: 0.0 * F.cross_entropy(o, y),
    "clamp_min": lambda o, y: (-1 - o.abs()).clamp_min(0).mean(),
    "some": lambda o, y: F.cross_entropy(o[:, :2], y.clamp_max(1)) + 0.0 * o[:, 2].mean(),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_without_a_slope_is_named(kind: str) -> None:
    torch.manual_seed(0)
    batch = torch.randn(16, 12), torch.randint(0, 5, (16,))
    found = unvanish.check(Written(), batch, LOSSES[kind])
    told = [f for f in found.findings if f.code == "GRF004"]
    if kind == "some":
        assert not told
        return
    assert told[0].cause.startswith(f"{kind} in the loss")
    assert told[0].severity == ("note" if kind in ("mul", "clamp_min") else "error")  # of a loss of 0
    assert found.healthy == (told[0].severity == "note")
    said = "nothing was judged" if found.healthy else "no gradient at all reaches the input"
    assert said in str(found)


def zeroed(*modules: nn.Module) -> None:
    for module in modules:
        for p in module.parameters():
            nn.init.zeros_(p)


class Branch(nn.Module):
    """x + alpha b(relu(a(x)))."""

    def __init__(self, alpha: float, zero: bool) -> None:
        super().__init__()
        self.a, self.b, self.alpha = nn.Linear(12, 12), nn.Linear(12, 12), nn.Parameter(torch.tensor(alpha))
        if zero:
            zeroed(self.b)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.alpha * self.b(torch.relu(self.a(x)))  # type: ignore[no-any-return]


class Normed(nn.Module):
    """x + norm(c(x)) with a gain of zero."""

    def __init__(self, zero: bool) -> None:
        super().__init__()
        self.c, self.norm = nn.Linear(12, 12, bias=False), nn.BatchNorm1d(12)
        nn.init.zeros_(self.norm.weight)
        if zero:
            zeroed(self.c)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.c(x))  # type: ignore[no-any-return]


class Adapter(nn.Module):
    """A frozen layer beside x A^T B^T (Hu et al. 2021)."""

    def __init__(self, zero: bool) -> None:
        super().__init__()
        self.core = nn.Linear(12, 12).requires_grad_(False)
        self.a = nn.Parameter(torch.zeros(4, 12) if zero else torch.randn(4, 12))
        self.b = nn.Parameter(torch.zeros(12, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.core(x) + x @ self.a.T @ self.b.T  # type: ignore[no-any-return]


def plain(activation: type[nn.Module], *zero: int) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(12, 12), activation(), nn.Linear(12, 12), activation(), nn.Linear(12, 5))
    zeroed(*[net[k] for k in zero])
    return net


LOCKED: list[tuple[Callable[[], nn.Module], tuple[str, ...]]] = [
    (lambda: plain(nn.Tanh, 0, 2, 4), ("2.weight", "4.weight")),
    (lambda: plain(nn.ReLU, 0, 2, 4), ("2.weight", "4.weight")),
    (lambda: plain(nn.Tanh, 2, 4), ("2.weight", "4.weight")),
    (lambda: nn.Sequential(Branch(0.0, True), nn.Linear(12, 5)), ("0.alpha", "0.b.weight")),
    (lambda: nn.Sequential(Normed(True), nn.Linear(12, 5)), ("0.c.weight", "0.norm.weight")),
    (lambda: nn.Sequential(Adapter(True), nn.Linear(12, 5)), ("0.a", "0.b")),
    (lambda: plain(nn.Tanh, 4), ()),
    (lambda: nn.Sequential(Branch(0.0, False), nn.Linear(12, 5)), ()),
    (lambda: nn.Sequential(Branch(1.0, True), nn.Linear(12, 5)), ()),
    (lambda: nn.Sequential(Normed(False), nn.Linear(12, 5)), ()),
    (lambda: nn.Sequential(Adapter(False), nn.Linear(12, 5)), ()),
]


@pytest.mark.parametrize("case", range(len(LOCKED)))
def test_two_zero_factors_hold_each_other_and_one_does_not(case: int) -> None:
    """The oracle: what is named has not moved after ten steps of SGD, and all else that is zero has."""
    build, names = LOCKED[case]
    torch.manual_seed(0)
    net, x, y = build(), torch.randn(16, 12), torch.randint(0, 5, (16,))
    found = unvanish.check(net, (x, y), nn.CrossEntropyLoss())
    assert found.codes()[:1] == (("GRF004",) if names else ())
    zero = {n for n, p in net.named_parameters() if p.ndim != 1 or "norm" in n if not p.any()}
    if names:
        cause = found.findings[0].cause
        assert " and ".join(names) in cause or " and ".join(reversed(names)) in cause
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    still = {n for n, p in net.named_parameters() if n in zero and not p.any()}
    assert {*names} <= still if names else not still


class Rotation(nn.Module):
    """A product with a value that is zero at the start, behind a layer that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Sequential(nn.Linear(12, 16), nn.ReLU()), nn.Linear(16, 4)
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        q = self.last(self.body(x))
        scalar, vector = q[:, :1], q[:, 1:]
        size = (vector.square().sum(1, keepdim=True) + 1e-12).sqrt()
        return 2 * vector * torch.atan2(size, scalar) / size


def test_a_product_with_a_value_that_is_zero_is_not_to_blame_behind_a_layer_of_zeros() -> None:
    torch.manual_seed(0)
    found = unvanish.check(Rotation(), (torch.randn(16, 12), torch.randn(16, 3)), nn.MSELoss())
    assert found.healthy
