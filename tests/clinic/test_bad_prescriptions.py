"""A prescription that does not fit: one clear SurgeryError; model, optimizer and process are as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from tests.fuzz.state import differences, picture
from torch import nn

import unvanish
from unvanish.core.diagnosis import Remedy
from unvanish.cures import cures
from unvanish.surgery.receipt import SurgeryError

WRONG = ("0.weight", "nowhere", "loss")


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))


def images() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


class Reads(nn.Module):
    """A recurrent layer, an embedding, an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.core, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.core(x[:, None])[0][:, -1])


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron": (perceptron, (8,)),
    "images": (images, (1, 8, 8)),
    "recurrent": (Reads, (8,)),
}


def wrong_targets(model: nn.Module) -> Iterator[tuple[str, ...]]:
    yield ()
    for target in dict.fromkeys((*WRONG, *(name for name, _ in model.named_modules()))):
        yield (target,)
    yield tuple(name for name, _ in model.named_modules())
    yield tuple(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cure", sorted(cures()))
def test_a_cure_fits_or_is_refused_by_one_clear_error(cure: str, name: str) -> None:
    torch.manual_seed(0)
    make, shape = MODELS[name]
    batch, loss = (torch.randn(4, *shape), torch.randint(0, 2, (4,))), nn.CrossEntropyLoss()
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    before = picture(model=model, optimizer=optimizer, batch=batch, loss=loss)
    for targets in wrong_targets(model):
        remedy = Remedy(cure, targets, "")
        try:
            unvanish.apply(model, [remedy], optimizer=optimizer, batch=batch, loss=loss).undo()
        except SurgeryError as error:
            assert str(error).count("\n") == 0 and len(str(error)) < 400, error
        after = picture(model=model, optimizer=optimizer, batch=batch, loss=loss)
        assert differences(before, after, versions=False) == [], (cure, targets)
