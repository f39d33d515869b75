"""The norm of every step, read in parts: equal to the whole norm if it must be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unvanish.probes.live.gauge import Gauge, LightRows, exact_norms
from unvanish.probes.live.updates import Parameters


def parameters(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(seed)
    shapes = [(300, 100), (300,), (16, 8, 3, 3), (100, 300), (70_000,), (5,)]
    found = [nn.Parameter(torch.zeros(s, dtype=dtype)) for s in shapes]
    for p in found:
        p.grad = torch.randn_like(p)
    return list(found)


def gauge(kept: list[Tensor], parts: int) -> Gauge:
    return Gauge(lambda g: g.detach(), kept, parts=parts)


def whole(kept: list[Tensor]) -> float:
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in kept if p.grad is not None))


@pytest.mark.parametrize("parts", [1, 2, 5, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_constant_gradient_reads_the_same_in_parts(parts: int, dtype: torch.dtype) -> None:
    kept = parameters(dtype=dtype)
    eye = gauge(kept, parts)
    for k in range(2 * parts + 2):
        assert eye.read() == pytest.approx(whole(kept), rel=1e-4)
        assert eye.exact == (parts == 1 or k == 0)


def test_every_element_is_read_once_in_a_round() -> None:
    kept = parameters()
    for p in kept:
        p.grad = torch.arange(p.numel(), dtype=torch.float32).reshape(p.shape)
    eye = gauge(kept, 7)
    eye.read()  # of all
    squares = [eye._square(k) for k in range(8)]
    assert math.sqrt(sum(squares)) == pytest.approx(whole(kept), rel=1e-5)


def test_channels_last_gradients_are_read_in_memory_order() -> None:
    p = nn.Parameter(torch.zeros(64, 32, 3, 3))
    p.grad = torch.randn(64, 32, 3, 3).to(memory_format=torch.channels_last)
    eye = gauge([p], 4)
    eye.read()
    pieces = [eye._cut(*piece) for part in eye._pieces for piece in part]
    assert all(t.data_ptr() >= p.grad.data_ptr() for t in pieces)  # views, no copies
    assert eye.read() == pytest.approx(whole([p]), rel=1e-5)


def test_what_grows_everywhere_is_followed_and_a_spike_is_exact() -> None:
    kept = parameters()
    eye = gauge(kept, 4)
    eye.read()
    for _ in range(10):
        for p in kept:
            p.grad *= 1.2
        assert eye.read() == pytest.approx(whole(kept), rel=1e-4)
        assert not eye.exact
    for p in kept:
        p.grad *= 50
    assert eye.read() == pytest.approx(whole(kept), rel=1e-5)
    assert eye.exact


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_nan_that_reaches_the_small_ones_is_seen_at_once_and_any_within_a_round(bad: float) -> None:
    kept = parameters()
    eye = gauge(kept, 4)
    eye.read()
    kept[1].grad[7] = bad
    found = eye.read()
    assert isinstance(found, float) and not math.isfinite(found)
    kept[1].grad[7] = 0.0
    eye.read()
    kept[4].grad[69_999] = bad
    assert any(not math.isfinite(eye.read()) for _ in range(4))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_float32_that_over_or_underflows_is_read_again(scale: float) -> None:
    kept = parameters()
    for p in kept:
        p.grad *= scale
    for parts in (1, 3):
        eye = gauge(kept, parts)
        assert [eye.read() / whole(kept) for _ in range(4)] == pytest.approx([1.0] * 4, rel=1e-4)
    read = exact_norms([p.grad for p in kept])
    want = torch.stack([p.grad.double().norm() for p in kept])
    assert torch.allclose(read, want, rtol=1e-5, atol=0)


def test_no_gradient_and_one_that_comes_later() -> None:
    kept = parameters()
    gradients = [p.grad for p in kept]
    for p in kept:
        p.grad = None
    eye = gauge(kept, 3)
    assert eye.read() is None
    for p, g in zip(kept, gradients, strict=True):
        p.grad = g
    assert eye.read() == pytest.approx(whole(kept), rel=1e-5)


def test_it_reads_in_more_parts_where_it_is_dear_and_in_fewer_where_not() -> None:
    eye = gauge([nn.Parameter(torch.randn(k, 1000)) for k in (1, 100, 100, 90)], 1)
    for p in eye.parameters:
        p.grad = torch.randn_like(p)
    eye.fit(1e-9)
    assert eye.parts == 1  # too few readings to tell
    for parts in (2, 4):
        for _ in range(12):
            eye.read()
        eye.fit(1e-9)
        assert eye.parts == parts
    for _ in range(12):
        eye.read()
    eye.fit(10.0)
    assert eye.parts == 2
    eye.whole = True
    eye.fit(1e-9)
    assert eye.parts == 2 and eye.read() == pytest.approx(whole(list(eye.parameters)), rel=1e-5)


def test_sparse_gradients_are_read_by_their_values() -> None:
    net = nn.Embedding(2000, 8, sparse=True)
    net(torch.tensor([3, 3, 7])).sum().backward()
    eye = Parameters(net, []).gauge()
    for parts in (1, 3):
        eye.parts = parts
        for _ in range(4):
            assert eye.read() == pytest.approx(float(net.weight.grad.to_dense().norm()), rel=1e-5)


def test_gradients_alike_are_joined_as_they_are_and_others_in_one_row() -> None:
    shapes = [*[(7,)] * 13, *[(k, 5) for k in range(1, 15)], (3, 3, 2), (), (2, 9)]
    kept = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in kept:
        p.grad = torch.randn_like(p)
    kept[5].grad = kept[20].grad = None
    rows = LightRows(kept)
    assert [len(row) for row in rows.rows] == [13, 14] and len(rows.rest) == 3
    assert rows.read() == pytest.approx(whole(kept), rel=1e-6)
    assert gauge(kept, 1).read() == pytest.approx(whole(kept), rel=1e-6)
    kept[0].grad = torch.full((7,), math.nan)
    assert math.isnan(rows.read())


def test_only_gradients_that_do_not_fit_into_a_row_are_left_to_the_longer_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("planted")

    dense, sparse = nn.Linear(3, 3), nn.Embedding(5, 3, sparse=True)
    (dense(torch.ones(2, 3)).sum() + sparse(torch.tensor([1, 2])).sum()).backward()
    assert LightRows([*dense.parameters(), *sparse.parameters()]).read() is None
    rows = LightRows(list(dense.parameters()))
    assert rows.read() is not None
    monkeypatch.setattr(torch._C._nn, "flatten_dense_tensors", fail)
    with pytest.raises(RuntimeError, match="planted"):
        rows.read()
