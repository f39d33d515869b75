"""NRM003: statistics of the wrong mode, those that never move, and dropouts that never stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import dropout as drop

import unvanish
from unvanish.core.diagnosis import Finding


def judge(model: nn.Module, scale: float = 1.0) -> list[Finding]:
    torch.manual_seed(0)
    batch = scale * torch.randn(32, 16), torch.randint(0, 4, (32,))
    found = [*unvanish.check(model, batch, F.cross_entropy, confirm=False).walk()]
    return [f for f in found if f.code == "NRM003"]


def build(rows: int = 1, **options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16, **options), nn.ReLU()) for _ in range(rows)]
    return nn.Sequential(*blocks, nn.Linear(16, 4))


class Own(nn.Module):
    """A head over what `middle` makes of a layer."""

    def __init__(self, middle: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.middle, self.p = nn.Linear(16, 16), nn.Linear(16, 4), middle, 0.2
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("var", torch.ones(16))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.middle(self, self.first(x)))
        return out


def test_a_deep_new_network_in_evaluation_mode_is_a_warning() -> None:
    (found,) = judge(build(4).eval())
    assert found.severity == "warning" and "still 0 and 1" in found.cause and "smaller" in found.cause
    assert found.sites[0] == "3.1" and "model.train()" in found.remedies[0].why


def test_a_shallow_one_is_a_note() -> None:
    (found,) = judge(build().eval())
    assert found.severity == "note" and "1 BatchNorm use running statistics" in found.cause


def test_statistics_of_other_data_are_a_warning_and_fitting_ones_are_silent() -> None:
    trained = build()
    for _ in range(50):
        trained(torch.randn(64, 16))
    assert judge(trained.eval()) == []
    trained.train()
    trained[0][1].eval()  # type: ignore[index]
    assert judge(trained, scale=2.0) == []
    (found,) = judge(trained, scale=20.0)
    assert found.severity == "warning" and "frozen" in found.cause and "of other data" in found.cause


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99, 1.0])
def test_a_momentum_at_either_end_is_named(momentum: float) -> None:
    (found,) = judge(build(momentum=momentum))
    assert found.severity == "warning" and f"a momentum of {momentum:g}" in found.cause


@pytest.mark.parametrize("momentum", [None, 0.003, 0.1, 0.5])
def test_usual_momenta_are_silent(momentum: float | None) -> None:
    assert judge(build(momentum=momentum)) == []
    assert judge(build(track_running_stats=False).eval()) == []


def test_statistics_that_were_learned_may_stand_still() -> None:
    trained = build(momentum=0.1)
    for _ in range(20):
        trained(torch.randn(64, 16))
    trained[0][1].momentum = 0.0  # type: ignore[index]
    assert judge(trained) == []


@pytest.mark.parametrize(
    "middle",
    [
        lambda net, h: F.dropout(h),
        lambda net, h: F.dropout(h, 0.2),
        lambda net, h: F.dropout(
            torch.relu(h),
            p=net.p,
        ),
        lambda net, h: drop(h, p=net.p),
        lambda net, h: F.scaled_dot_product_attention(h[:, None], h[:, None], h[:, None], dropout_p=0.1)[
            :, 0
        ],
        lambda net, h: F.scaled_dot_product_attention(h[:, None], h[:, None], h[:, None], dropout_p=net.p)[
            :, 0
        ],
    ],
)
def test_a_dropout_that_does_not_know_the_mode_is_named_with_its_line(middle: Any) -> None:
    (found,) = judge(Own(middle))
    assert found.severity == "warning" and "test_nrm003.py:" in found.cause
    assert "in evaluation, too" in found.cause


@pytest.mark.parametrize(
    "middle",
    [
        lambda net, h: F.dropout(h, 0.2, net.training),
        lambda net, h: F.dropout(h, p=net.p, training=net.training),
        lambda net, h: F.dropout(h, 0.0),
        lambda net, h: F.dropout(h) if net.training else h,
        lambda net, h: F.scaled_dot_product_attention(
            h[:, None], h[:, None], h[:, None], dropout_p=net.p if net.training else 0.0
        )[:, 0],
        lambda net, h: F.batch_norm(h, net.mean, net.var, training=net.training),
        lambda net, h: F.batch_norm(h, None, None, training=True),
        lambda net, h: F.batch_norm(h, net.mean, net.var, training=True) if net.training else h - net.mean,
    ],
)
def test_what_follows_the_mode_is_silent(middle: Any) -> None:
    assert judge(Own(middle)) == []


@pytest.mark.parametrize("train", [True, False])
def test_a_dropout_that_is_written_as_always_on_is_a_note(train: bool) -> None:
    (found,) = judge(Own(lambda net, h: F.dropout(h, 0.2, training=True)).train(train))
    assert found.severity == "note" and "on purpose" in found.cause


@pytest.mark.parametrize("train", [True, False])
def test_batch_statistics_for_ever_are_named(train: bool) -> None:
    (found,) = judge(Own(lambda net, h: F.batch_norm(h, net.mean, net.var, training=True)).train(train))
    assert found.severity == "warning" and "never used" in found.cause and "test_nrm003.py:" in found.cause
