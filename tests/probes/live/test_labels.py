"""The labels of a loss are read off its node; their entropy is the loss of the best constant answer."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unvanish.probes.live.labels import measure_entropy, read_labels


def _draw(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, requires_grad=True)


def _best(loss: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """The least of a loss over one answer for all samples, by descent."""
    answer = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([answer], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(answer)
        value.backward()
        return value

    return float(optimizer.step(closure).detach()) if optimizer.step(closure) is not None else math.nan


LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 0, 4, -100, 0])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 1.0, 3.0])
ANSWERS = torch.tensor([[1.0, 0.0, 0.3], [0.0, 0.0, 0.9], [1.0, 0.0, 0.5], [1.0, 0.0, 0.1]])


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_the_entropy_of_classes_is_the_least_loss_of_a_constant(weight: Tensor | None) -> None:
    read = read_labels(F.cross_entropy(_draw(10, 5), LABELS, weight=weight))
    assert read is not None and read.rows == 9 and read.varied and not read.yes_no
    guess, _ = measure_entropy(read.sums, read.rows, False)
    least = _best(lambda z: F.cross_entropy(z.expand(10, 5), LABELS, weight=weight), torch.zeros(1, 5))
    assert guess == pytest.approx(least, abs=1e-3)


def test_the_entropy_of_answers_is_the_least_loss_of_a_constant() -> None:
    for logits in (True, False):
        loss = F.binary_cross_entropy_with_logits if logits else F.binary_cross_entropy
        z = _draw(4, 3)
        read = read_labels(loss(z if logits else z.sigmoid(), ANSWERS))
        assert read is not None and read.rows == 4 and read.varied and read.yes_no
        guess, off = measure_entropy(read.sums, read.rows, True)
        least = _best(
            lambda z: F.binary_cross_entropy_with_logits(z.expand(4, 3), ANSWERS), torch.zeros(1, 3)
        )
        assert guess == pytest.approx(least, abs=1e-3) and off == pytest.approx(2 / 3 / 8)


@pytest.mark.parametrize("shape", [(2, 5, 5), (2, 5, 5, 1)])
def test_places_count_as_samples(shape: tuple[int, ...]) -> None:
    read = read_labels(F.cross_entropy(_draw(*shape), LABELS.reshape(shape[0], *shape[2:])))
    assert read is not None and read.sums.tolist() == [5, 2, 1, 0, 1]


@pytest.mark.parametrize("factor", [1 / 4, 1024.0, 0.3])
def test_a_factor_is_taken_out_of_the_value(factor: float) -> None:
    loss = F.cross_entropy(_draw(10, 5), LABELS)
    read = read_labels(loss * factor)
    assert read is not None and read.value == pytest.approx(loss.item())


@pytest.mark.parametrize(
    "make",
    [
        lambda z: F.cross_entropy(z, LABELS) + z.square().mean(),
        lambda z: F.cross_entropy(z, LABELS, reduction="sum"),
        lambda z: F.cross_entropy(z, LABELS, label_smoothing=0.1),
        lambda z: F.cross_entropy(z, z.detach().softmax(-1)),
        lambda z: F.binary_cross_entropy_with_logits(z, (z > 0).float(), pos_weight=torch.ones(5)),
        lambda z: F.mse_loss(z, z.detach()),
        lambda z: z.square().mean(),
    ],
)
def test_another_loss_is_left_alone(make: Callable[[Tensor], Tensor]) -> None:
    assert read_labels(make(_draw(10, 5))) is None


def test_labels_that_are_all_the_same_do_not_vary() -> None:
    ones = read_labels(F.binary_cross_entropy_with_logits(_draw(8, 1), torch.ones(8, 1)))
    assert ones is not None and not ones.varied
    threes = read_labels(F.cross_entropy(_draw(8, 5), torch.full((8,), 3)))
    assert threes is not None and not threes.varied
    assert measure_entropy(threes.sums, threes.rows, False) == (0.0, 0.0)
    assert all(map(math.isnan, measure_entropy(torch.zeros(3), 0, False)))


def test_few_labels_of_many_classes_leave_the_entropy_open() -> None:
    torch.manual_seed(0)
    sums = torch.bincount(torch.randint(0, 1000, (500,)), minlength=1000).double()
    guess, off = measure_entropy(sums, 500, False)
    assert guess < math.log(1000) and off > 0.02 * guess
