"""What a proof trains on and what it judges on never share a sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from unvanish.clinic.samples import BATCHES, divide
from unvanish.probes import CheckError
from unvanish.probes.loaders import take_batches


def _rows(batch: Any) -> set[int]:
    first = batch if isinstance(batch, Tensor) else batch["x"] if isinstance(batch, dict) else batch[0]
    return set(first[:, 0].int().tolist())


@pytest.mark.parametrize("count", [16, 17, 64, 1000])
@pytest.mark.parametrize("form", ["tensor", "pair", "keywords"])
def test_a_batch_is_divided(form: str, count: int) -> None:
    x = torch.arange(count)[:, None].float()
    batch: Any = {"tensor": x, "pair": (x, x[:, 0]), "keywords": {"x": x, "labels": x[:, 0]}}[form]
    samples = divide((batch,))
    (training,) = samples.training
    assert _rows(training) | _rows(samples.judging) == set(range(count))
    assert not _rows(training) & _rows(samples.judging)
    assert samples.unseen == len(_rows(samples.judging)) == count // 4
    if form == "pair":
        assert torch.equal(training[0][:, 0], training[1])


@pytest.mark.parametrize(
    "batch",
    [
        (torch.zeros(15, 2), torch.zeros(15)),
        (torch.zeros(32, 2), torch.zeros(31)),  # one of them is not by samples
        (torch.zeros(32, 2), torch.tensor(3.0)),
        (torch.zeros(32, 2), "a text"),
        torch.zeros(32, 2).to_sparse(),
    ],
)
def test_what_cannot_be_divided_is_judged_as_it_is(batch: Any) -> None:
    samples = divide((batch,))
    assert samples.unseen == 0 and samples.judging is batch and samples.training == (batch,)


def test_of_a_loader_the_last_batch_is_judged() -> None:
    loader = DataLoader(TensorDataset(torch.arange(100)[:, None].float(), torch.zeros(100)), batch_size=10)
    batches, _ = take_batches(loader, BATCHES)
    samples = divide(batches)
    assert (len(samples.training), samples.unseen) == (4, 10)
    assert _rows(samples.judging) == set(range(40, 50))


def test_a_loader_that_yields_nothing_is_refused() -> None:
    with pytest.raises(CheckError, match="yields no batch"):
        take_batches(iter(()), 1)
