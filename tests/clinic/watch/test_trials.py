"""The step just made is tried on its own batch: the run stays as it was, and a rate too large is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.watch.trials import ROWS, RisingLoss

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
F: Any = nn.functional


def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(x), y)


def with_penalty(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    penalty = sum((p * p).sum() for p in net.parameters())
    return nn.CrossEntropyLoss()(net(x).view(-1, 3), y) + 1e-3 * penalty


def in_two_forwards(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(x) + net(-x), y)


def by_autocast(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
    return F.cross_entropy(out.float(), y)


def written_in_place(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(x).mul_(2), y)


def random_loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(F.dropout(net(x), 0.5), y)


def train(loss: Loss, watched: dict[str, Any] | None, rate: float = 1e-3, steps: int = 8) -> tuple[Any, Any]:
    """(losses and weights, the watch) of a small training with dropout and batch statistics."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(net.parameters(), rate)
    watch = None if watched is None else unvanish.watch(net, optimizer, on_finding="silent", **watched)
    losses = []
    for _ in range(steps):
        x, y = torch.randn(16, 6), torch.randint(3, (16,))
        value = loss(net, x, y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
        if watch is not None:
            watch.step(value)
    if watch is not None:
        watch.close()
    return (losses, [b.tolist() for b in net.state_dict().values()], torch.get_rng_state().tolist()), watch


@pytest.mark.parametrize("loss", [plain, with_penalty, in_two_forwards, by_autocast])
def test_the_step_is_tried_and_the_run_stays_the_same(loss: Loss) -> None:
    alone, _ = train(loss, None)
    seen, watch = train(loss, {"critical": True, "every": 1})
    assert seen == alone and not watch.notes and not watch.failure
    tried = watch.diagnosis().trace.facts["critical"]
    assert len(tried) >= 3 and tried[0]["step"] == 0
    losses = [seen[0][t["step"]] for t in tried]
    assert [t["loss_before"] for t in tried] == pytest.approx(losses, rel=0.01)
    assert [f.severity for f in watch.findings if f.code == "OPT008"] == ["note"]


@pytest.mark.parametrize(
    ("loss", "why"), [(written_in_place, "writes in place"), (random_loss, "draws random numbers")]
)
def test_a_loss_that_cannot_be_computed_again_is_said(loss: Loss, why: str) -> None:
    alone, _ = train(loss, None)
    seen, watch = train(loss, {"critical": True, "every": 1})
    assert seen == alone and any(why in note for note in watch.notes)
    assert "critical" not in watch.diagnosis().trace.facts


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_the_first_step_of_an_optimizer_that_nobody_named_is_tried(kind: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3))
    optimizer = kind(net.parameters(), 3.0 if kind is torch.optim.Adam else 300.0)
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    with unvanish.watch(net, on_finding="silent") as watch:
        for _ in range(4):
            optimizer.zero_grad()
            plain(net, x, y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert [f.code for f in watch.findings if f.severity != "note"][:1] == ["OPT008"], watch.findings
    assert watch.diagnosis().trace.facts["critical"][0]["step"] == 0


def test_a_rate_far_beyond_the_critical_one_is_named_unasked() -> None:
    alone, _ = train(plain, None, rate=3.0)
    seen, watch = train(plain, {}, rate=3.0)
    assert seen == alone
    found = next(f for f in watch.findings if f.code == "OPT008")
    assert found.severity in ("warning", "error") and found.cause.startswith("at step 0 the rate 3 is ")


def test_an_ordinary_run_is_left_alone() -> None:
    _, watch = train(plain, {})
    assert not watch.findings and "critical" not in watch.diagnosis().trace.facts


def test_two_optimizers_are_not_tried_and_it_is_said() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizers = [torch.optim.SGD(layer.parameters(), 0.1) for layer in net]
    with unvanish.watch(net, optimizers, critical=True, on_finding="silent") as watch:
        net(torch.randn(3, 4)).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    assert watch.notes == ["the critical step is not measured: it takes exactly one optimizer"]


def test_a_loss_rises_if_it_is_twice_its_mean_for_some_steps() -> None:
    rising = RisingLoss()
    assert not any(rising.note(1.0) for _ in range(20))
    assert [rising.note(5.0) for _ in range(ROWS)] == [False] * (ROWS - 1) + [True]
    assert not rising.note(1.0) and not rising.note(float("nan"))
    below = RisingLoss()  # a negative loss that falls
    assert not any(below.note(-1.0 - k) for k in range(20))


def test_the_first_step_of_sgd_is_tried_on_the_next_batch() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.SGD(net.parameters(), 60.0)
    with unvanish.watch(net, optimizer, on_finding="silent") as watch:
        for _ in range(3):
            x = torch.randn(64, 6)
            value = plain(net, x, x[:, :3].argmax(1))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            watch.step(value)
    first = watch.diagnosis().trace.facts["critical"][0]
    assert first["step"] == 0 and first["rate"] == 60 and first["multiple"] < 0.5
    assert any(f.code == "OPT008" for f in watch.findings) and not watch.failure
