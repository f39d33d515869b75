"""GRF009: second derivatives that are zero, and gradients within the loss that are none of its business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Finding

Loss = Callable[..., Tensor]


def differentiate(u: Tensor, x: Tensor, graph: bool = True) -> Tensor:
    (found,) = torch.autograd.grad(u.sum(), x, create_graph=graph, retain_graph=True)
    return found


class Field(nn.Module):
    """A network of two inputs, the points it is read at, and what `read` makes of both."""

    def __init__(self, activation: Callable[[], nn.Module], read: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 1)
        )
        self.read = read

    def forward(self, x: Tensor) -> Any:
        x = x.clone().requires_grad_()
        return self.read(self.net(x), x)


def judge(model: nn.Module, loss: Loss) -> list[Finding]:
    torch.manual_seed(0)
    return [*unvanish.check(model, torch.rand(32, 2), loss, confirm=False).walk()]


def heat(u: Tensor, x: Tensor) -> Tensor:
    slope = differentiate(u, x)
    return slope[:, 1:] - 0.1 * differentiate(slope[:, 0], x)[:, :1]


def laplace(u: Tensor, x: Tensor) -> Tensor:
    slope = differentiate(u, x)
    return u + torch.stack([differentiate(slope[:, i], x)[:, i] for i in range(2)]).sum(0)[:, None]


def square(out: Tensor) -> Tensor:
    return (out + 1).square().mean()


@pytest.mark.parametrize("read", [heat, laplace])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Hardtanh])
def test_straight_pieces_have_no_curvature(activation: Any, read: Any) -> None:
    torch.manual_seed(0)
    found = judge(Field(activation, read), square)
    assert found[0].code == "GRF009" and found[0].severity == "error"
    assert "test_grf009.py:" in found[0].cause
    assert found[0].remedies[0].targets == ("net.1", "net.3")


def test_a_second_derivative_taken_in_the_loss_is_seen() -> None:
    torch.manual_seed(0)
    model = Field(nn.ReLU, lambda u, x: (u, x))
    found = judge(model, lambda out: square(laplace(*out)))
    assert found[0].code == "GRF009" and "taken in the loss" in found[0].cause


@pytest.mark.parametrize("read", [heat, laplace])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.Softplus, nn.SiLU, nn.GELU, nn.ELU])
def test_curved_activations_are_silent(activation: Any, read: Any) -> None:
    torch.manual_seed(0)
    assert not [f for f in judge(Field(activation, read), square) if f.severity != "note"]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_first_derivatives_alone_need_no_curvature(activation: Any) -> None:
    torch.manual_seed(0)
    penalised = Field(activation, lambda u, x: (u, differentiate(u, x)))

    def penalty(out: tuple[Tensor, Tensor]) -> Tensor:
        return out[0].mean() + (out[1].norm(dim=1) - 1).square().mean()

    assert not [f for f in judge(penalised, penalty) if f.severity != "note"]
    steep = Field(activation, lambda u, x: differentiate(u, x).norm(dim=1))
    assert not [f for f in judge(steep, square) if f.severity != "note"]


def test_what_only_a_derivative_is_read_of_is_a_note() -> None:
    torch.manual_seed(0)
    (found,) = judge(Field(nn.Tanh, differentiate), square)
    assert (found.code, found.severity) == ("GRF001", "note")
    assert "a derivative that does not depend on it" in found.cause and "net.4" in found.cause


@pytest.mark.parametrize("code", ["GRF001", "GRF006"])
def test_a_gradient_without_a_graph_names_create_graph(code: str) -> None:
    torch.manual_seed(0)
    model = Field(nn.Tanh, lambda u, x: (u, differentiate(u, x, graph=False)))
    value = 0.0 if code == "GRF001" else 1.0

    def loss(out: tuple[Tensor, Tensor]) -> Tensor:
        penalty = out[1].square().mean()
        total = F.softplus(out[0]).mean() + penalty if value else penalty.requires_grad_()
        return total

    found = judge(model, loss)[0]
    assert found.code == code and "autograd.grad without create_graph=True" in found.cause
    assert "create_graph=True" in found.remedies[0].why
