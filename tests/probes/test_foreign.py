"""Leaves that learn and are not registered are found wherever they hang; what looks like them is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Diagnosis

OUTSIDE = torch.ones(16, requires_grad=True)
BESIDE = nn.Linear(16, 16)


class Net(nn.Module):
    """Two layers; `step` lies between them, and `keep` is set as attributes."""

    def __init__(self, step: Callable[[Any, Tensor], Tensor], **keep: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 4)
        for name, value in keep.items():
            setattr(self, name, value)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.step(self, torch.relu(self.first(x))))
        return out


class Global(nn.Module):
    """Multiplies by a tensor of the module's file."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x * OUTSIDE)
        return out


class Lazy(nn.Module):
    """Makes and keeps a layer when it first runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), None

    def forward(self, x: Tensor) -> Tensor:
        if self.last is None:
            self.last = nn.Linear(16, 4)
        out: Tensor = self.last(torch.relu(self.first(x)))
        return out


def check(model: nn.Module, loss: Any = F.cross_entropy, optimizer: Any = None) -> Diagnosis:
    torch.manual_seed(0)
    batch = torch.randn(32, 16), torch.randint(0, 4, (32,))
    return unvanish.check(model, batch, loss, optimizer=optimizer, confirm=False)


def named(diagnosis: Diagnosis) -> list[tuple[str, tuple[str, ...]]]:
    return [(f.severity, f.sites) for f in diagnosis.walk() if f.code == "GRF005"]


class Plain:
    """An object that is no module."""

    def __init__(self) -> None:
        self.layer = nn.Linear(16, 16)


class Scales:
    """An object with a list."""

    def __init__(self) -> None:
        self.scales = [torch.ones(16, requires_grad=True)]


@pytest.mark.parametrize(
    ("model", "severity", "site"),
    [
        (Net(lambda m, h: m.kept[0](h), kept=[nn.Linear(16, 16)]), "warning", "kept[0].weight"),
        (Net(lambda m, h: m.kept["a"](h), kept={"a": nn.Linear(16, 16)}), "warning", "kept['a'].weight"),
        (Net(lambda m, h: m.kept[0][0](h), kept=[[nn.Linear(16, 16)]]), "warning", "kept[0][0].weight"),
        (Net(lambda m, h: h * m.scale, scale=torch.ones(16, requires_grad=True)), "warning", "scale"),
        (Net(lambda m, h: h * m.kept[0], kept=[nn.Parameter(torch.ones(16))]), "warning", "kept[0]"),
        (Net(lambda m, h: m.kept.layer(h), kept=Plain()), "warning", "kept.layer.weight"),
        (Net(lambda m, h: h * m.kept.scales[0], kept=Scales()), "warning", "kept.scales[0]"),
        (Net(lambda m, h: BESIDE(h)), "warning", "BESIDE.weight"),
        (Global(), "warning", "OUTSIDE"),
        (Net(lambda m, h: nn.Linear(16, 16)(h)), "error", "(made in its forward)"),
        (Net(lambda m, h: h * nn.Parameter(1 + 0.1 * torch.randn(16))), "error", "(made in its forward)"),
        (Net(lambda m, h: h * torch.ones(16, requires_grad=True)), "error", "(made in its forward)"),
        (Lazy(), "error", "last.weight"),
    ],
)  # fmt: skip
def test_it_is_found_and_its_place_is_named(model: nn.Module, severity: str, site: str) -> None:
    ((found, sites),) = named(check(model))
    assert found == severity and site in sites


def test_an_optimizer_decides() -> None:
    model = Net(lambda m, h: m.kept[0](h), kept=[nn.Linear(16, 16)])
    some = torch.optim.SGD(model.parameters(), lr=0.1)
    every = torch.optim.SGD([*model.parameters(), *model.kept[0].parameters()], lr=0.1)  # type: ignore[index]
    assert [severity for severity, _ in named(check(model, optimizer=some))] == ["error"]
    assert named(check(model, optimizer=every)) == []


def test_what_the_loss_learns_is_a_note_until_an_optimizer_lacks_it() -> None:
    weights = nn.Parameter(torch.zeros(2))

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return (-weights).exp()[0] * F.cross_entropy(out, y) + weights.sum()

    model = nn.Linear(16, 4)
    assert named(check(model, loss)) == [("note", ("weights",))]
    assert named(check(model, loss, torch.optim.SGD(model.parameters(), lr=0.1))) == [("error", ("weights",))]
    every = torch.optim.SGD([*model.parameters(), weights], lr=0.1)
    assert named(check(model, loss, every)) == []


def inner(m: nn.Module, h: Tensor) -> Tensor:
    """A collocation point: the derivative is taken of it."""
    points = torch.rand(7, 16, requires_grad=True)
    values = BESIDE.weight.detach() @ points.T
    (slope,) = torch.autograd.grad(values.sum(), points, create_graph=True)
    return h + slope.mean() * points.mean()


def test_what_looks_like_it_is_silent() -> None:
    discriminator = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def saved(m: Any, h: Tensor) -> Tensor:
        m.last_seen = h.detach().requires_grad_()
        return h

    def start(m: nn.Module, h: Tensor) -> Tensor:
        total = torch.tensor(0.0, requires_grad=True)
        return h + (total + h.mean())

    def fast(m: Any, h: Tensor) -> Tensor:
        weights = {n: p - 0.1 * p for n, p in m.last.named_parameters()}
        return h + torch.func.functional_call(m.last, weights, (h,)).mean()

    frozen = nn.Linear(16, 16).requires_grad_(False)
    healthy = [
        Net(lambda m, h: h + torch.zeros(len(h), 16, requires_grad=True)),
        Net(lambda m, h: h + torch.zeros_like(h).uniform_(-0.1, 0.1).requires_grad_()),
        Net(inner),
        Net(saved),
        Net(start),
        Net(fast),
        Net(lambda m, h: m.kept[0](h) + m.first(h), kept=[frozen]),
    ]
    assert [named(check(model)) for model in healthy] == [[]] * len(healthy)
    generator = nn.Linear(16, 4)
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
    assert named(check(generator, lambda out, y: -discriminator(out).mean(), optimizer)) == []


def test_a_parameter_that_was_moved_is_none() -> None:
    def scale(net: Any, h: Tensor) -> Tensor:
        return h * net.gain.to(h.dtype)

    torch.manual_seed(0)
    batch = torch.randn(32, 16), torch.randint(0, 4, (32,))
    for gain, codes in (
        (nn.Parameter(torch.ones(16)).double(), ("GRF005",)),
        (nn.Parameter(torch.ones(16)), ()),
    ):
        net = Net(scale, gain=gain)
        found = unvanish.check(net, batch, nn.CrossEntropyLoss(), confirm=False)
        assert found.codes() == codes
        assert all(f.sites == ("gain",) for f in found.findings)
