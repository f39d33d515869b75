"""Labels under a squared error: which are taken for numbers of classes, and which for grades or counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(96, 8, generator=G), torch.randint(0, 6, (96,), generator=G)
Loss = Callable[[Tensor, Tensor], Tensor]
SICK: dict[str, tuple[int, Loss]] = {
    "one unit": (1, lambda o, y: functional.mse_loss(o.squeeze(1), y.float())),
    "by hand": (1, lambda o, y: ((o[:, 0] - y) ** 2).mean()),
    "absolute": (1, lambda o, y: functional.l1_loss(o, y.view(-1, 1).type_as(o))),
    "scores": (6, lambda o, y: functional.mse_loss(o, y[:, None].float().expand_as(o))),
    "probabilities": (6, lambda o, y: ((o.softmax(1) - y[:, None]) ** 2).mean()),
    "largest score": (6, lambda o, y: functional.mse_loss(o.max(1)[0], y.float())),
}
MEANT: dict[str, tuple[int, Tensor, Loss]] = {
    "one-hot": (6, Y, lambda o, y: functional.mse_loss(o.softmax(1), functional.one_hot(y, 6).float())),
    "thresholds": (5, Y, lambda o, y: functional.mse_loss(o, (y[:, None] > torch.arange(5)).float())),
    "yes and no": (1, Y % 2, lambda o, y: functional.mse_loss(o.squeeze(1), y.float())),
    "stars": (1, Y + 1, lambda o, y: functional.mse_loss(o.squeeze(1), y.float())),
    "floats": (1, Y.float(), lambda o, y: functional.mse_loss(o.squeeze(1), y)),
}


def judge(outputs: int, y: Tensor, loss: Loss, severity: Any = "warning") -> tuple[str, ...]:
    torch.manual_seed(0)
    model = nn.Linear(8, outputs)
    return unvanish.check(model, (X, y), loss, confirm=False, select=["OUT005"]).codes(severity)


@pytest.mark.parametrize("name", SICK)
def test_numbers_of_classes_are_no_quantities(name: str) -> None:
    assert judge(SICK[name][0], Y, SICK[name][1]) == ("OUT005",)


@pytest.mark.parametrize("name", MEANT)
def test_what_is_a_quantity_or_made_one_is_left_alone(name: str) -> None:
    assert judge(*MEANT[name], severity="note") == ()


def test_counts_and_grades_are_a_note() -> None:
    counts = (torch.arange(96) % 12).clamp(max=3)
    loss = SICK["one unit"][1]
    assert judge(1, counts, loss) == () and judge(1, counts, loss, "note") == ("OUT005",)


def test_tokens_are_no_quantities() -> None:
    class Language(nn.Module):
        """One number for each next token."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.head = nn.Embedding(50, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.tokens(x)).squeeze(-1)
            return out

    text = torch.randint(0, 50, (8, 12), generator=torch.Generator().manual_seed(0))
    loss = lambda o, y: functional.mse_loss(o, y.float())  # noqa: E731
    found = unvanish.check(Language(), (text[:, :-1], text[:, 1:]), loss, confirm=False, select=["OUT005"])
    assert found.codes() == ("OUT005",) and "tokens" in found.findings[0].cause
