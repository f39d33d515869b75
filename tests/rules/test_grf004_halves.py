"""GRF004: recurrent layers that are read after their first step, and layers that begin at zero."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(32, 9, 8, generator=GENERATOR), torch.randint(0, 3, (32,), generator=GENERATOR)
Read = Callable[[Tensor, Any], Tensor]
CELLS = (nn.LSTM, nn.GRU, nn.RNN)


class Reader(nn.Module):
    """A recurrent layer and a head; `read` takes what the head sees."""

    def __init__(self, cell: Any, read: Read, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = cell(8, 16, batch_first=True, **options)
        self.head, self.read = nn.Linear(32 if options.get("bidirectional") else 16, 3), read

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.read(*self.cell(x)))
        return out


def judge(net: nn.Module, x: Tensor = X) -> list[str]:
    found = unvanish.check(net, (x, Y), nn.CrossEntropyLoss(), confirm=False, select=["GRF004"])
    return [f"{f.cause} | {f.remedies[0].why}" for f in found.findings]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_half_that_has_seen_one_step_is_named_and_where_to_read_it(cell: Any, layers: int) -> None:
    options = {"bidirectional": True, "num_layers": layers}
    (last,) = judge(Reader(cell, lambda out, _: out[:, -1], **options))
    assert "the reverse half" in last and "one step only" in last and "first step" in last
    (first,) = judge(Reader(cell, lambda out, _: out[:, 0], **options))
    assert "the forward half" in first and "ends at the last step" in first


def read_ends(out: Tensor, _: Any) -> Tensor:
    return torch.cat([out[:, -1, :16], out[:, 0, 16:]], -1)


@pytest.mark.parametrize("cell", CELLS)
def test_what_reads_each_half_at_its_end_is_left_alone(cell: Any) -> None:
    for read in (read_ends, lambda out, _: out.mean(1), lambda out, _: out.amax(1)):
        assert judge(Reader(cell, read, bidirectional=True)) == []
    assert judge(Reader(cell, lambda out, _: out[:, -1])) == []


def test_one_direction_and_sequences_of_one_step_have_no_halves() -> None:
    (first,) = judge(Reader(nn.GRU, lambda out, _: out[:, 0]))
    assert "half" not in first and "one step only" in first
    (single,) = judge(Reader(nn.GRU, lambda out, _: out[:, -1], bidirectional=True), X[:, :1])
    assert "half" not in single and "a sequence of several" in single


def test_a_layer_of_zeros_is_not_said_to_be_read_early() -> None:
    net = Reader(nn.LSTM, lambda out, _: out[:, -1])
    for parameter in net.cell.parameters():
        nn.init.zeros_(parameter)
    assert not any("one step only" in said for said in judge(net))


@pytest.mark.parametrize("zero", [z for k in (1, 2) for z in itertools.combinations((0, 2, 4, 6), k)])
def test_layers_of_zeros_are_reported_exactly_if_some_never_wake(zero: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    net.extend([nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)])
    for i in zero:
        for parameter in net[i].parameters():
            nn.init.zeros_(parameter)
    x, loss = X[:, 0], nn.CrossEntropyLoss()
    said = unvanish.check(net, (x, Y), loss).at_least("warning")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(20):
        optimizer.zero_grad()
        loss(net(x), Y).backward()
        optimizer.step()
    asleep = [p for p in net.parameters() if p.grad is not None and not p.grad.any()]
    assert bool(said) == bool(asleep)
