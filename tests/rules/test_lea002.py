"""LEA002 on small models: answers in sight, targets moved the wrong way, and what is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish
from unvanish.core.diagnosis import Finding

TEXT = torch.randint(1, 20, (16, 13), generator=torch.Generator().manual_seed(0))
Loss = Callable[[Tensor, Tensor], Tensor]


class Recurrent(nn.Module):
    """Scores of tokens at each position, in one or both directions."""

    def __init__(self, both: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 16)
        self.core = nn.GRU(16, 16, batch_first=True, bidirectional=both)
        self.head = nn.Linear(32 if both else 16, 20)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.core(self.tokens(x))[0])
        return out


class Attending(nn.Module):
    """A transformer with or without its mask; its scores may be flattened."""

    def __init__(self, masked: bool, flat: bool = False) -> None:
        super().__init__()
        self.tokens, self.places, self.flat, self.masked = (
            nn.Embedding(20, 16),
            nn.Embedding(16, 16),
            flat,
            masked,
        )
        self.core = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.head = nn.Linear(16, 20)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(n) if self.masked else None
        out: Tensor = self.head(self.core(self.tokens(x) + self.places(torch.arange(n)), src_mask=mask))
        return out.flatten(0, 1) if self.flat else out


def whole(o: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(o.flatten(0, -2), y.flatten())


def sliced(o: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(o[:, :-1].transpose(1, 2), y[:, 1:])


def find(model: nn.Module, batch: Any, loss: Any) -> Finding | None:
    found = unvanish.check(model, batch, loss, confirm=False, select=["LEA002"]).findings
    return found[0] if found else None


NEXT = TEXT[:, :-1], TEXT[:, 1:]


@pytest.mark.parametrize(
    ("model", "batch", "loss", "words"),
    [
        (lambda: Recurrent(True), NEXT, whole, "looks ahead"),
        (lambda: Attending(False), NEXT, whole, "looks ahead"),
        (lambda: Attending(False, flat=True), NEXT, whole, "looks ahead"),
        (lambda: Attending(False), (TEXT, TEXT), sliced, "looks ahead"),
        (Recurrent, (TEXT, TEXT), whole, "shift by one step is missing"),
        (lambda: Attending(True), (TEXT, TEXT), whole, "shift by one step is missing"),
        (Recurrent, (TEXT[:, 1:], TEXT[:, :-1]), whole, "the wrong way"),
        (Recurrent, NEXT, sliced, "shifted twice"),
    ],
)
def test_answers_in_sight_are_named(
    model: Callable[[], nn.Module], batch: Any, loss: Loss, words: str
) -> None:
    torch.manual_seed(0)
    found = find(model(), batch, loss)
    assert found is not None and words in found.cause


class Pixels(nn.Module):
    """Masked convolutions over pictures of whole numbers; `open`: the first one sees its own place."""

    def __init__(self, open: bool, last: bool) -> None:
        super().__init__()
        self.tokens, self.head, self.last = nn.Embedding(8, 12), nn.Conv2d(16, 8, 1), last
        self.kernel = nn.Parameter(torch.randn(16, 12, 3, 3, generator=torch.Generator().manual_seed(0)) / 8)
        self.mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, float(open), 0.0], [0.0, 0.0, 0.0]])

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x).permute(0, 3, 1, 2)
        out: Tensor = self.head(torch.relu(functional.conv2d(h, self.kernel * self.mask, padding=1)))
        return out.permute(0, 2, 3, 1) if self.last else out


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("open", "codes"), [(True, ("LEA002",)), (False, ())])
def test_a_pixel_may_see_the_others_of_its_row(open: bool, last: bool, codes: tuple[str, ...]) -> None:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(o.movedim(-1, 1) if last else o, y)

    x = torch.randint(0, 8, (6, 9, 7), generator=torch.Generator().manual_seed(0))
    found = unvanish.check(Pixels(open, last), (x, x), loss, confirm=False, select=["LEA002"])
    assert found.codes() == codes


def test_labels_that_were_shifted_before_are_shifted_twice() -> None:
    torch.manual_seed(0)
    before = torch.cat([TEXT[:, 1:], torch.full((16, 1), -100)], 1)
    found = find(Attending(True), (TEXT, before), sliced)
    assert found is not None and "shifted twice" in found.cause


class Shifting(Recurrent):
    """It moves its input itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1))


class Bottleneck(Recurrent):
    """It gives the whole input back from its last state."""

    def forward(self, x: Tensor) -> Tensor:
        last = self.core(self.tokens(x))[1][0]
        out: Tensor = self.head(last[:, None] + self.tokens(torch.arange(x.shape[1])))
        return out


def masked_batch() -> tuple[Tensor, Tensor]:
    hidden = torch.rand(TEXT.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    return TEXT.masked_fill(hidden, 0), TEXT.masked_fill(~hidden, -100)


@pytest.mark.parametrize(
    ("model", "batch", "loss"),
    [
        (Recurrent, NEXT, whole),
        (lambda: Attending(True), NEXT, whole),
        (lambda: Attending(True), (TEXT, TEXT), sliced),
        (lambda: Attending(True, flat=True), NEXT, whole),
        (Shifting, (TEXT, TEXT), whole),
        (Bottleneck, (TEXT, TEXT), whole),
        (lambda: Attending(False), masked_batch(), whole),
        (lambda: Recurrent(True), (TEXT, (TEXT + 7) % 20), whole),
        (Recurrent, (TEXT, TEXT), lambda o, y: sliced(o, y) + 0.1 * whole(o[:, :-2], y[:, 2:])),
    ],
)
def test_what_does_not_see_its_answer_is_left_alone(
    model: Callable[[], nn.Module], batch: Any, loss: Loss
) -> None:
    torch.manual_seed(0)
    assert find(model(), batch, loss) is None


@pytest.mark.parametrize("both", [False, True])
def test_the_next_numbers_are_not_to_be_seen_either(both: bool) -> None:
    class Forecast(nn.Module):
        """The next numbers of a series."""

        def __init__(self) -> None:
            super().__init__()
            self.core, self.head = nn.GRU(3, 12, batch_first=True, bidirectional=both), nn.Linear(24, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.core(x)[0]
            out: Tensor = self.head(h if both else torch.cat([h, h], -1))
            return out

    torch.manual_seed(0)
    series = torch.randn(8, 12, 3)
    assert (find(Forecast(), (series[:, :-1], series[:, 1:]), nn.MSELoss()) is not None) == both
    assert find(Forecast(), (series, series), nn.MSELoss()) is None
