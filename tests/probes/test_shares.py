"""How a loss shares itself out: padding that counts, a rare class that outweighs all, labels turned round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

G = torch.Generator().manual_seed(0)
X = torch.randn(256, 8, generator=G)
RARE = (torch.rand(256, generator=G) < 0.04).long()
LENGTHS = torch.randint(3, 10, (16,), generator=G)
THERE = torch.arange(40)[None] < LENGTHS[:, None]
TEXT = torch.randint(1, 20, (16, 40), generator=G) * THERE
Loss = Callable[[Tensor, Any], Tensor]


def judge(model: nn.Module, batch: Any, loss: Any, *codes: str) -> tuple[str, ...]:
    return unvanish.check(model, batch, loss, confirm=False, select=list(codes)).codes()


def weighed(weight: float) -> Loss:
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, weight]))


def weighed_by_hand(weight: float) -> Loss:
    w = torch.tensor([1.0, weight])
    return lambda o, y: (functional.cross_entropy(o, y, reduction="none") * w[y]).mean()


def yes_weighed(weight: float) -> Loss:
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([weight]))
    return lambda o, y: loss(o[:, :1], y[:, None].float())  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", [weighed, weighed_by_hand, yes_weighed])
@pytest.mark.parametrize(("weight", "codes"), [(3000.0, ("LOS001",)), (25.0, ()), (100.0, ())])
def test_a_rare_class_may_not_have_all_of_the_loss(
    form: Callable[[float], Loss], weight: float, codes: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    assert judge(nn.Linear(8, 2), (X, RARE), form(weight), "LOS001") == codes


def test_a_single_label_of_a_rare_class_comes_by_chance() -> None:
    torch.manual_seed(0)
    y = torch.zeros(256, dtype=torch.long)
    y[:2] = 1
    assert judge(nn.Linear(8, 2), (X, y), weighed(1e5), "LOS001") == ()


Y = torch.randint(0, 3, (256,), generator=G)


def soft(o: Tensor, y: Tensor, smooth: float) -> Tensor:
    t = torch.full(o.shape, smooth / 2)
    t[torch.arange(len(y)), y] = 1 - smooth
    return functional.cross_entropy(o, t)


@pytest.mark.parametrize(("smooth", "code"), [(0.1, ()), (0.9, ("LOS002",))])
def test_labels_smoothed_past_the_others_are_named(smooth: float, code: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    assert judge(nn.Linear(8, 3), (X, Y), lambda o, y: soft(o, y, smooth), "LOS002", "OUT006") == code


@pytest.mark.parametrize(("smooth", "code"), [(0.1, ()), (0.45, ("OUT006",)), (0.7, ("LOS002",))])
def test_yes_and_no_smoothed_past_each_other_are_named(smooth: float, code: tuple[str, ...]) -> None:
    torch.manual_seed(0)

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(o, y * (1 - smooth) + (1 - y) * smooth)

    y = (Y > 0).float()[:, None]
    assert judge(nn.Linear(8, 1), (X, y), loss, "LOS002", "OUT006") == code


class Tagger(nn.Module):
    """Scores at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.core = nn.Embedding(20, 12), nn.GRU(12, 12, batch_first=True)
        self.head = nn.Linear(12, 20)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.core(self.tokens(x))[0])
        return out


def counted(o: Tensor, y: Tensor, ignored: int = -100) -> Tensor:
    return functional.cross_entropy(o.flatten(0, 1), y.flatten(), ignore_index=ignored)


def masked(o: Tensor, y: Tensor) -> Tensor:
    each = functional.cross_entropy(o.transpose(1, 2), y, reduction="none")
    return (each * (y > 0)).sum() / (y > 0).sum()


@pytest.mark.parametrize("moved", [False, True])
def test_padding_that_counts_is_named_unless_it_is_left_out(moved: bool) -> None:
    torch.manual_seed(0)
    batch = (TEXT[:, :-1], TEXT[:, 1:]) if moved else (TEXT, (TEXT + 3) % 20 * THERE)
    assert judge(Tagger(), batch, counted, "INP003") == ("INP003",)
    assert judge(Tagger(), batch, lambda o, y: counted(o, y, 0), "INP003") == ()
    assert judge(Tagger(), batch, masked, "INP003") == ()


def test_a_frequent_label_is_no_padding() -> None:
    torch.manual_seed(0)
    words = torch.randint(1, 20, (16, 40), generator=torch.Generator().manual_seed(1))
    assert judge(Tagger(), (words, TEXT), counted, "INP003") == ()


def test_numbers_filled_with_zeros_are_padding_too() -> None:
    torch.manual_seed(0)

    class Series(nn.Module):
        """Numbers at each step."""

        def __init__(self) -> None:
            super().__init__()
            self.core, self.head = nn.GRU(4, 12, batch_first=True), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.core(x)[0])
            return out

    x = torch.randn(16, 40, 4) * THERE[..., None]
    y = torch.randn(16, 40, 4) * THERE[..., None]
    assert judge(Series(), (x, y), nn.MSELoss(), "INP003") == ("INP003",)
    assert judge(Series(), (torch.randn(16, 40, 4), y), nn.MSELoss(), "INP003") == ()


@pytest.mark.parametrize(("ignored", "codes"), [(0, ("OUT005",)), (-100, ())])
def test_a_class_that_is_ignored_is_named(ignored: int, codes: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    y = torch.where(torch.rand(256) < 0.9, 0, Y)
    loss = nn.CrossEntropyLoss(ignore_index=ignored)
    assert judge(nn.Linear(8, 3), (X, y), loss, "OUT005") == codes


def test_maps_of_one_label_are_a_note() -> None:
    torch.manual_seed(0)
    batch = torch.randn(4, 3, 12, 12), torch.zeros(4, 12, 12, dtype=torch.long)
    found = unvanish.check(nn.Conv2d(3, 5, 1), batch, nn.CrossEntropyLoss(), confirm=False, select=["OUT005"])
    assert found.codes("note") == ("OUT005",) and found.codes() == ()
