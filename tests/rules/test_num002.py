"""NUM002 on functions by hand: which gradients are wrong, how it is said, and what is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Finding


def function(forward: Callable[..., Tensor], backward: Callable[..., Any]) -> Any:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Tensor) -> Tensor:
            ctx.save_for_backward(*args)
            return forward(*args)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            return backward(g, *ctx.saved_tensors)

    return Own


class Net(nn.Module):
    def __init__(self, own: Any, weighted: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.own = nn.Linear(16, 12), nn.Linear(12, 4), own
        self.weight = nn.Parameter(torch.randn(12, 12) / 4) if weighted else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        out: Tensor = self.last(self.own.apply(h) if self.weight is None else self.own.apply(h, self.weight))
        return out


def judge(
    forward: Callable[..., Tensor], backward: Callable[..., Any], weighted: bool = False
) -> list[Finding]:
    torch.manual_seed(0)
    batch = torch.randn(32, 16), torch.randint(0, 4, (32,))
    model = Net(function(forward, backward), weighted)
    found = unvanish.check(model, batch, F.cross_entropy, confirm=False).walk()
    return [f for f in found if f.code == "NUM002"]


@pytest.mark.parametrize(
    ("forward", "backward", "weighted", "words"),
    [
        (lambda x: x.exp(), lambda g, x: -g * x.exp(), False, "first input the negative of the gradient"),
        (lambda x: x**2, lambda g, x: g * x, False, "first input 0.5 times the gradient"),
        (lambda x: x.tanh(), lambda g, x: g * (1 - x**2), False, "of another direction"),
        (lambda x: x.softmax(-1), lambda g, x: g * x.softmax(-1), False, "of another direction"),
        (lambda x, w: x @ w, lambda g, x, w: (g @ w, x.T @ g), True, "first input a gradient of another"),
        (lambda x, w: x @ w, lambda g, x, w: (g @ w.T, g.T @ x), True, "second input a gradient of another"),
        (lambda x, w: x @ w, lambda g, x, w: (g @ w.T, None), True, "second input no gradient"),
    ],
)
def test_a_wrong_gradient_is_named_by_how_it_is_wrong(
    forward: Callable[..., Tensor], backward: Callable[..., Any], weighted: bool, words: str
) -> None:
    (found,) = judge(forward, backward, weighted)
    assert found.severity == "error" and words in found.cause


@pytest.mark.parametrize(
    ("forward", "backward", "weighted"),
    [
        (lambda x: x.exp(), lambda g, x: g * x.exp(), False),
        (lambda x: x.clamp(min=0), lambda g, x: g * (x > 0), False),
        (lambda x: x.round(), lambda g, x: g, False),
        (lambda x: x.sign(), lambda g, x: g * (x.abs() < 1), False),
        (lambda x: (x > 0).to(x.dtype), lambda g, x: g / (1 + 10 * x.abs()) ** 2, False),
        (lambda x: x.clamp(-0.5, 0.5), lambda g, x: g, False),
        (lambda x: x * (torch.rand_like(x) > 0.5), lambda g, x: g, False),
        (lambda x, w: x @ w, lambda g, x, w: (g @ w.T, x.T @ g), True),
        (lambda x, w: (x / w[0, 0]).round() * w[0, 0], lambda g, x, w: (g, torch.zeros_like(w)), True),
        (lambda x: torch.relu(x.float()).to(x.dtype), lambda g, x: g * (x > 0), False),
    ],
)
def test_right_gradients_and_straight_through_ones_are_silent(
    forward: Callable[..., Tensor], backward: Callable[..., Any], weighted: bool
) -> None:
    assert judge(forward, backward, weighted) == []


@pytest.mark.parametrize("backward", [lambda g, x: -0.3 * g, lambda g, x: g.clamp(-1e-3, 1e-3)])
def test_a_gradient_that_is_changed_on_purpose_is_a_note(backward: Callable[..., Any]) -> None:
    (found,) = judge(lambda x: x.clone(), backward)
    assert found.severity == "note" and found.cause.endswith("on purpose")


def test_the_examination_puts_apply_back() -> None:
    before: Any = torch.autograd.Function.__dict__["apply"]
    judge(lambda x: x.exp(), lambda g, x: g * x.exp())
    assert torch.autograd.Function.__dict__["apply"] is before


class Stored(nn.Module):
    """Keeps `apply` itself, as in `swish = Swish.apply`."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        self.first, self.last, self.activate = nn.Linear(16, 12), nn.Linear(12, 4), own.apply

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.activate(self.first(x)))
        return out


class SplitSine(torch.autograd.Function):
    """A sine in the newer style, whose context is set up apart; the sign of its gradient is wrong."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return -g * x.cos()


@pytest.mark.parametrize("style", ["one", "split"])
def test_a_function_whose_apply_was_stored_is_judged_and_put_back(style: str) -> None:
    own = SplitSine if style == "split" else function(lambda x: x.sin(), lambda g, x: -g * x.cos())
    before = vars(own)["forward"]
    torch.manual_seed(0)
    batch = torch.randn(32, 16), torch.randint(0, 4, (32,))
    found = [*unvanish.check(Stored(own), batch, F.cross_entropy, confirm=False).walk()]
    assert [f.code for f in found] == ["NUM002"] and "the negative of the gradient" in found[0].cause
    assert vars(own)["forward"] is before


def test_a_stored_function_with_its_own_gradient_is_silent() -> None:
    torch.manual_seed(0)
    batch = torch.randn(32, 16), torch.randint(0, 4, (32,))
    model = Stored(function(lambda x: x.sin(), lambda g, x: g * x.cos()))
    assert not [*unvanish.check(model, batch, F.cross_entropy, confirm=False).walk()]


class Surrogate(torch.autograd.Function):
    """Spikes; whether what arrives is passed on is the question."""

    heeds = True

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v > 0).to(v)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        slope: Tensor = 1 / (1 + 10 * v.abs()) ** 2
        return g * slope if Surrogate.heeds else slope


@pytest.mark.parametrize("heeds", [True, False])
def test_a_surrogate_must_follow_what_arrives(heeds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Surrogate, "heeds", heeds)
    torch.manual_seed(0)
    batch = torch.randn(16, 16), torch.arange(16) % 4
    found = unvanish.check(Net(Surrogate), batch, nn.CrossEntropyLoss(), select=["NUM002"]).findings
    assert not found if heeds else (found[0].severity == "error" and "whatever arrives" in found[0].cause)


class Hung(torch.autograd.Function):
    """Passes its first input on, and gives the second, a loss, the gradient 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g, torch.ones((), dtype=g.dtype)


class Fused(torch.autograd.Function):
    """A squared error whose gradient is that of the loss, whatever arrives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square().mean()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x / x.numel()


def test_losses_may_give_their_own_gradient() -> None:
    class Penalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(16, 12), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            out: Tensor = self.last(Hung.apply(h, 0.01 * h.square().mean()))  # type: ignore[no-untyped-call]
            return out

    torch.manual_seed(0)
    batch = torch.randn(16, 16), torch.arange(16) % 4
    hung = unvanish.check(Penalised(), batch, nn.CrossEntropyLoss(), select=["NUM002"])
    assert not any("whatever arrives" in f.cause for f in hung.findings)
    fused = unvanish.check(Penalised(), batch, lambda o, y: Fused.apply(o), select=["NUM002"])  # type: ignore[no-untyped-call]
    assert [f.severity for f in fused.findings if "whatever arrives" in f.cause] == ["note"]


def fix(p: Tensor) -> Tensor:
    return p.detach()


ESTIMATORS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "less p, plus it fixed": (lambda p: p.round() - p + fix(p), True),
    "fixed first": (lambda p: fix(p) + (p > 0).float() - p, True),
    "the right way": (lambda p: p + (p.round() - p).detach(), False),
    "the right way, in three parts": (lambda p: p.round() + p - fix(p), False),
    "a reversal": (lambda p: 2 * fix(p) - p, False),
    "less a fixed mean": (lambda p: p - fix(p).mean(0), False),
    "from a fixed mean": (lambda p: fix(p).mean(0) - p, False),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_by_hand_passes_the_gradient_with_its_sign(name: str) -> None:
    step, wrong = ESTIMATORS[name]

    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(16, 12), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(step(2 * torch.tanh(self.first(x))))
            return out

    torch.manual_seed(0)
    batch = torch.randn(32, 16), torch.randn(32, 4)
    found = unvanish.check(Rounded(), batch, nn.MSELoss(), confirm=False, select=["NUM002"])
    assert found.codes() == (("NUM002",) if wrong else ())
