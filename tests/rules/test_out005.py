"""OUT005: targets far from what the output gives, as people have them, and those that fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

N = 48
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 8, generator=GENERATOR)
UNIT = X[:, :3].sum(1, keepdim=True) / 3**0.5
YES_NO = (UNIT > 0).float()
SQUARED, LOGITS, ENTROPY = nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss()
MARKED = YES_NO.clone()
MARKED[:9] = -1
Loss = Callable[..., Tensor]


class Scaled(nn.Module):
    """A function of a small net."""

    def __init__(self, width: int, last: Callable[[Tensor], Tensor] = lambda o: o) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, width))
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.net(x))


def judge(net: nn.Module, batch: Tensor | tuple[Tensor, Tensor], loss: Loss) -> tuple[str, ...]:
    return unvanish.check(net, batch, loss, confirm=False, theory=False).codes()


FAR: dict[str, tuple[int, Tensor, Loss, str]] = {
    "prices": (1, 20000 + 8000 * UNIT, SQUARED, "too far"),
    "prices, absolute": (1, 20000 + 8000 * UNIT, nn.L1Loss(), "too far"),
    "prices, rooted": (1, 20000 + 8000 * UNIT, lambda o, y: functional.mse_loss(o, y).sqrt(), "too far"),
    "large by hand": (1, 1e5 * UNIT, lambda o, y: (y - o).pow(2).mean(), "too far"),
    "years": (1, 2000 + 10 * UNIT, SQUARED, "too far"),
    "body heat": (1, 37 + 0.5 * UNIT, SQUARED, "smaller than the offset"),
    "tiny": (1, 1e-6 * UNIT, SQUARED, "output's own size"),
    "a table": (3, torch.cat([UNIT, 90 * UNIT, 0.01 * UNIT], 1), SQUARED, "the large ones alone"),
    "masks of 255": (1, 255 * YES_NO, LOGITS, "without end"),
    "plus and minus one": (1, 2 * YES_NO - 1, LOGITS, "without end"),
    "classes from one": (1, 1 + YES_NO, LOGITS, "without end"),
    "one class": (5, torch.full((N,), 2), ENTROPY, "one class"),
}
NEAR: dict[str, tuple[int, Tensor, Loss]] = {
    "standardised": (1, UNIT, SQUARED),
    "ages": (1, 40 + 15 * UNIT, SQUARED),
    "zeros": (1, torch.zeros(N, 1), SQUARED),
    "a constant": (1, torch.full((N, 1), 500.0), SQUARED),
    "relative": (1, 1 + UNIT.abs(), lambda o, y: ((o - y) / y).abs().mean()),
    "a table": (3, torch.cat([UNIT, 10 * UNIT, 0.1 * UNIT], 1), SQUARED),
    "yes and no": (1, YES_NO, LOGITS),
    "smoothed": (1, 0.1 + 0.8 * YES_NO, LOGITS),
    "all true": (1, torch.ones(N, 1), LOGITS),
    "marks, weighed": (
        1, MARKED, lambda o, y: functional.binary_cross_entropy_with_logits(o, y, weight=(y >= 0).float())
    ),
    "many classes": (5, torch.arange(N) % 5, ENTROPY),
    "positives first": (5, UNIT, lambda o, y: functional.cross_entropy(o, torch.zeros(N, dtype=torch.long))),
}  # fmt: skip


@pytest.mark.parametrize("name", FAR)
def test_targets_that_are_far_are_found(name: str) -> None:
    width, y, loss, words = FAR[name]
    found = unvanish.check(Scaled(width), (X, y), loss, confirm=False)
    assert found.codes()[0] == "OUT005" and words in found.findings[0].cause


@pytest.mark.parametrize("name", NEAR)
def test_targets_that_fit_are_left_alone(name: str) -> None:
    width, y, loss = NEAR[name]
    assert judge(Scaled(width), (X, y), loss) == ()


def test_an_output_that_is_scaled_inside_the_model_fits() -> None:
    assert judge(Scaled(1, lambda o: 20000 + 8000 * o), (X, 20000 + 8000 * UNIT), SQUARED) == ()
    assert judge(Scaled(1, lambda o: (o + 9).exp()), (X, 8000 + 500 * UNIT), SQUARED) == ()


def test_a_few_labels_and_two_classes_are_no_warning() -> None:
    assert judge(Scaled(5), (X[:8], torch.full((8,), 2)), ENTROPY) == ()
    found = unvanish.check(Scaled(2), (X, torch.zeros(N, dtype=torch.long)), ENTROPY, confirm=False)
    assert found.codes() == () and found.codes("note") == ("OUT005",)


@pytest.mark.parametrize("name", ["prices", "body heat", "a table"])
def test_the_cure_leaves_nothing_to_find(name: str) -> None:
    width, y, loss, _ = FAR[name]
    cured = unvanish.cure(Scaled(width), (X, y), loss)
    assert [r.cure for r in cured.prescription.remedies] == ["standardise-target"]
    assert unvanish.check(cured.model, (X, y), cured.loss).codes() == ()
