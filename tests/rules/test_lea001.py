"""LEA001 on small models: which operations mix samples, how they are named, and what is meant or no leak."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Diagnosis, Finding

Step = Callable[[Any, Tensor], Tensor]
LABELS = torch.randint(0, 4, (16,), generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A layer, something that makes one row of a sample, and a layer; `part` is a module for it."""

    def __init__(self, step: Step, part: nn.Module | None = None, buffer: Tensor | None = None) -> None:
        super().__init__()
        self.first, self.last, self.part, self.step = nn.Linear(8, 8), nn.Linear(8, 4), part, step
        self.register_buffer("matrix", buffer)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.step(self, torch.tanh(self.first(x))))
        return out


def sequences() -> Tensor:
    return torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(0))


def rows() -> Tensor:
    return torch.randn(16, 8, generator=torch.Generator().manual_seed(0))


def check(
    model: nn.Module, x: Tensor | None = None, y: Tensor = LABELS, loss: Any = F.cross_entropy
) -> Diagnosis:
    return unvanish.check(model, (sequences() if x is None else x, y), loss, confirm=False)


def leak(diagnosis: Diagnosis) -> Finding | None:
    return next((f for f in diagnosis.walk() if f.code == "LEA001"), None)


def pool(axis: int) -> Step:
    return lambda m, h: (torch.softmax(h.sum(-1), axis)[..., None] * h).sum(1)


def attend(m: Any, h: Tensor) -> Tensor:
    out: Tensor = m.part(h, h, h)[0].mean(1)
    return out


def encoder(**more: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, **more)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Net(pool(0)), "along the axis of the samples"),
        (Net(lambda m, h: F.normalize(h, dim=0).mean(1)), "along the axis of the samples"),
        (Net(lambda m, h: h.cumsum(0).mean(1)), "along the axis of the samples"),
        (Net(lambda m, h: h.reshape(5, 16, 8).mean(0)), "a view is no transpose"),
        (Net(lambda m, h: h.transpose(0, 1).reshape(16, 40)[:, :8]), "a view is no transpose"),
        (Net(attend, nn.MultiheadAttention(8, 2)), "attends over the samples"),
        (Net(lambda m, h: m.part(h).mean(1), encoder()), "attends over the samples"),
        (Net(lambda m, h: m.part(h)[0][:, -1], nn.LSTM(8, 8)), "steps through the samples"),
    ],
)
def test_an_operation_that_mixes_samples_is_named(model: nn.Module, words: str) -> None:
    found = leak(check(model))
    assert found is not None and found.severity == "warning" and words in found.cause


@pytest.mark.parametrize(
    "model",
    [
        Net(pool(1)),
        Net(lambda m, h: F.normalize(h, dim=-1).cumsum(1).mean(1)),
        Net(lambda m, h: h.transpose(0, 1).mean(0)),
        Net(lambda m, h: m.part(h.reshape(-1, 8)).view(16, 5, 8).mean(1), nn.Linear(8, 8)),
        Net(attend, nn.MultiheadAttention(8, 2, batch_first=True)),
        Net(lambda m, h: m.part(h).mean(1), encoder(batch_first=True)),
        Net(lambda m, h: m.part(h)[0][:, -1], nn.LSTM(8, 8, batch_first=True)),
    ],
)
def test_the_same_within_each_sample_is_silent(model: nn.Module) -> None:
    assert leak(check(model)) is None


def test_statistics_of_the_batch_mixed_rows_and_graphs_are_silent() -> None:
    mask = (torch.rand(16, 16) < 0.3).float() + torch.eye(16)

    def graph(m: Any, h: Tensor) -> Tensor:
        return (h @ h.T).masked_fill(m.matrix == 0, -1e9).softmax(1) @ h

    silent = [
        Net(lambda m, h: m.part(h.softmax(0)), nn.BatchNorm1d(8)),
        Net(lambda m, h: ((h - h.mean(0)) / (h.std(0) + 1e-5)).softmax(0)),
        Net(lambda m, h: 0.7 * h + 0.3 * h[torch.randperm(16)]),
        Net(graph, buffer=mask),
    ]
    assert [leak(check(model, rows())) for model in silent] == [None] * 4


def test_what_compares_all_samples_by_design_is_silent_in_the_output_and_in_the_loss() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) @ self.b(x).T

    assert leak(check(Pairs(), rows(), torch.arange(16))) is None
    negatives = check(nn.Linear(8, 8), rows(), torch.arange(16), lambda o, y: F.cross_entropy(o @ o.T, y))
    assert leak(negatives) is None


@pytest.mark.parametrize(
    "model",
    [
        Net(
            lambda m, h: m.part(h[None], h[None], h[None])[0][0],
            nn.MultiheadAttention(8, 2, batch_first=True),
        ),
        Net(lambda m, h: m.part(h[:, None])[:, 0], encoder()),
    ],
)
def test_rows_that_are_made_one_sequence_are_a_note(model: nn.Module) -> None:
    found = leak(check(model, rows()))
    assert found is not None and found.severity == "note"


def test_a_first_axis_that_may_be_time_gives_a_note_at_most() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.last = nn.LSTM(8, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.cell(x)[0])
            return out

    steps, tags = torch.randn(7, 16, 8), torch.randint(0, 4, (7, 16))
    found = leak(check(Tagger(), steps, tags, lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten())))
    assert found is not None and found.severity == "note" and "if the first axis" in found.cause


def test_groups_of_samples_whose_spread_is_read_are_statistics() -> None:
    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            y = h.view(4, -1, 1, 4, 8, 8)
            y = (y - y.mean(0)).square().mean(0).sqrt().mean([2, 3, 4], keepdim=True).squeeze(2)
            out: Tensor = self.last(torch.cat([h, y.repeat(4, 1, 8, 8)], 1).mean((2, 3)))
            return out

    assert leak(check(Spread(), torch.randn(16, 3, 8, 8))) is None


@pytest.mark.parametrize(
    "step",
    [
        lambda m, h: F.layer_norm(h.t(), (16,)).t(),
        lambda m, h: h * h.t().softmax(-1).t(),
        lambda m, h: F.normalize(h.t(), dim=1).t(),
    ],
)
def test_an_operation_over_the_samples_of_a_transposed_batch_is_a_leak(step: Step) -> None:
    found = leak(check(Net(step), rows()))
    assert found is not None and found.severity in ("warning", "error")
    assert "runs along the axis of the samples" in found.cause


@pytest.mark.parametrize(
    "step",
    [
        lambda m, h: F.layer_norm(h.t().contiguous().t(), (8,)),
        lambda m, h: h * h.t().softmax(0).t(),
        lambda m, h: F.normalize(h, dim=1),
    ],
)
def test_an_operation_over_the_features_of_a_transposed_batch_is_none(step: Step) -> None:
    assert leak(check(Net(step), rows())) is None


def graphs(offset: bool) -> nn.Module:
    """Graphs of five nodes, whose edges name the nodes by their numbers in the batch, or in one graph."""

    class Graphs(nn.Module):
        """Sums over neighbours, and a mean."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            count = torch.arange(len(x))[:, None, None] * x.shape[1] if offset else 0
            source, target = (edges + count).reshape(-1, 2).T
            h = self.a(x).reshape(-1, 8)
            h = h + torch.zeros_like(h).index_add(0, target, h[source])
            out: Tensor = self.b(torch.tanh(h).view(len(x), -1, 8).mean(1))
            return out

    return Graphs()


@pytest.mark.parametrize("offset", [False, True])
def test_edges_that_lack_the_offset_of_their_graph(offset: bool) -> None:
    torch.manual_seed(0)
    batch = (sequences(), torch.randint(0, 5, (16, 6, 2))), LABELS
    found = unvanish.check(graphs(offset), batch, F.cross_entropy, confirm=False).walk()
    own = [f for f in found if f.code == "LEA001"]
    assert bool(own) != offset
    assert offset or "offset" in own[0].cause


@pytest.mark.parametrize(("axis", "leaks"), [(0, True), (1, False)])
def test_a_layer_that_reads_the_samples_after_a_transpose(axis: int, leaks: bool) -> None:
    part = nn.Linear(16 if axis == 0 else 5, 16 if axis == 0 else 5)
    net = Net(lambda own, h: own.part(h.transpose(axis, 2)).transpose(axis, 2).mean(1), part)
    found = unvanish.check(net, (sequences(), LABELS), F.cross_entropy, confirm=False)
    assert ("LEA001" in found.codes()) == leaks


@pytest.mark.parametrize("cut", [True, False])
def test_two_batches_that_are_joined_and_cut_again(cut: bool) -> None:
    torch.manual_seed(0)

    class Twins(nn.Module):
        """One layer for both of a pair, and one for the pair."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(16, 4)

        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            h = torch.tanh(self.a(torch.cat([one, other])))
            out: Tensor = self.b(h.view(len(one), 16) if cut else torch.cat(h.chunk(2), 1))
            return out

    batch = (torch.randn(16, 8), torch.randn(16, 8)), LABELS
    assert ("LEA001" in unvanish.check(Twins(), batch, F.cross_entropy, confirm=False).codes()) == cut
