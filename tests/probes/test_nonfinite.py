"""Where a NaN or an infinity is made, and what is said to help: by operation, also if the loss is finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish

entropy = nn.CrossEntropyLoss()


class Net(nn.Module):
    """Two layers, a function of them, and a head."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(16, 32), nn.Linear(32, 8), nn.Linear(8, 4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.function(self.second(torch.tanh(self.first(x)))))
        return out


def _batch() -> tuple[Tensor, Tensor]:
    return torch.randn(32, 16), torch.randint(0, 4, (32,))


def _hide_two(z: Tensor) -> Tensor:
    return torch.cat([z[:2] * 0, z[2:].abs() + 1])


def _attend(z: Tensor) -> Tensor:
    allowed = torch.ones(len(z), len(z), dtype=torch.bool)
    allowed[3] = False
    weights: Tensor = (z @ z.T).masked_fill(~allowed, -math.inf).softmax(-1)
    return weights @ z


def _average(z: Tensor) -> Tensor:
    chosen = (z > 1e6).float()
    return z + (z * chosen).sum(1, keepdim=True) / chosen.sum(1, keepdim=True)


def _but_two(loss: Any) -> Any:
    return lambda out, y: loss(out[2:], y[2:])


MADE: dict[str, tuple[Callable[[Tensor], Tensor], Any, str]] = {
    "svd": (lambda z: z + torch.linalg.svd((z.T @ z) * 0 + torch.eye(8))[0].sum(), entropy, "diagonal"),
    "eigh": (lambda z: z + torch.linalg.eigh((z.T @ z) * 0 + torch.eye(8))[1].sum(0), entropy, "diagonal"),
    "acos": (lambda z: torch.acos((z * 9).clamp(-1, 1)) * 0 + torch.acos(z / z), entropy, "atan2"),
    "log": (lambda z: torch.log(torch.relu(z)), entropy, "log_softmax"),
    "log in rows that are discarded": (lambda z: torch.log(_hide_two(z)), _but_two(entropy), "log_softmax"),
    "sqrt behind a mask": (lambda z: torch.where(z > 0, torch.sqrt(z), 0.0), entropy, "inside the root"),
    "div by a count of zero": (_average, entropy, "clamp(min=1)"),
    "exp": (lambda z: torch.exp(500 * z), entropy, "logsumexp"),
    "softmax of a row without a key": (_attend, entropy, "single key"),
    "logsumexp of nothing": (
        lambda z: z + torch.logsumexp(z.masked_fill(z < 1e9, -math.inf), 1, keepdim=True),
        entropy,
        "single key",
    ),
    "std of one value": (lambda z: z / z[:, :1].std(1, keepdim=True), entropy, "correction=0"),
    "pow": (lambda z: torch.where(z > 0, z.pow(0.5), 0.0), entropy, "(x + epsilon) ** p"),
    "cross_entropy_loss without a label": (
        lambda z: z, lambda out, y: F.cross_entropy(out, torch.full_like(y, -100)), "ignored",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_the_operation_that_makes_it_is_named_with_what_helps_there(name: str) -> None:
    torch.manual_seed(0)
    function, loss, remedy = MADE[name]
    found = unvanish.check(Net(function), _batch(), loss).findings[0]
    assert (found.code, found.severity) == ("NUM001", "error")
    assert name.split()[0] in found.cause.split(" makes ")[0]
    assert remedy in found.remedies[0].why


def test_targets_shorter_than_their_paths_are_said_to_ctc() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 6)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.core(x)[0]).log_softmax(-1).transpose(0, 1)
            return out

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.ctc_loss(out, y, torch.full((4,), 7), torch.full((4,), 9))

    torch.manual_seed(0)
    batch = torch.randn(4, 7, 8), torch.randint(1, 6, (4, 9))
    (remedy,) = unvanish.check(Reader(), batch, loss).findings[0].remedies
    assert "zero_infinity=True" in remedy.why


def test_a_target_that_holds_one_is_named() -> None:
    x = torch.randn(32, 16)
    y = torch.zeros(32, 4)
    y[0, 0] = math.nan
    found = unvanish.check(Net(torch.tanh), (x, y), nn.MSELoss()).findings[0]
    assert (found.code, found.sites) == ("NUM001", ("target",))


@pytest.mark.parametrize(
    "function",
    [
        lambda z: (z @ z.T).masked_fill(torch.ones(32, 32).triu(1).bool(), -math.inf).softmax(-1) @ z,
        lambda z: z * torch.exp(torch.full_like(z, -math.inf)) + z,
        lambda z: F.normalize(z * 0, dim=1) + z,
        lambda z: z / z.norm(dim=1, keepdim=True).clamp_min(1e-6),
        lambda z: torch.where(z > 0, torch.sqrt(torch.where(z > 0, z, 1.0)), 0.0),
    ],
)
def test_infinities_that_a_mask_means_are_no_fault(function: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    assert "NUM001" not in unvanish.check(Net(function), _batch(), entropy).codes("note")


MORE: dict[str, tuple[Callable[[Tensor], Tensor], Any, str]] = {
    "erfinv": (lambda z: torch.erfinv(torch.tanh(1000 * z)), entropy, "infinite at -1 and 1"),
    "log1p": (lambda z: torch.log1p(-torch.sigmoid(1000 * z)), entropy, "reaches -1"),
    "logit": (lambda z: torch.logit(torch.sigmoid(1000 * z)), entropy, "infinite at 0 and 1"),
    "mse_loss": (lambda z: z, lambda out, y: F.mse_loss(out[y > 9], out[y > 9] * 0), "mean over nothing"),
    "linalg_slogdet": (
        lambda z: z,
        lambda out, y: entropy(out, y) - torch.linalg.slogdet((out.T @ out) * 0)[1],
        "diagonal",
    ),
    "mul": (lambda z: z * 0 * torch.full_like(z, math.inf), entropy, "zero times infinity"),
}


@pytest.mark.parametrize("kind", MORE)
def test_the_producer_is_named_with_its_line_and_what_helps_there(kind: str) -> None:
    torch.manual_seed(0)
    function, loss, words = MORE[kind]
    found = unvanish.check(Net(function), _batch(), loss, confirm=False).findings[0]
    assert found.code == "NUM001" and found.cause.startswith(f"{kind} makes the first")
    assert "test_nonfinite.py:" in found.cause and words in found.remedies[0].why
    assert len(found.remedies) == 1 + (kind in ("log1p", "logit"))


def test_an_operation_of_the_loss_is_said_to_be_in_the_loss() -> None:
    torch.manual_seed(0)
    found = unvanish.check(Net(lambda z: z), _batch(), MORE["mse_loss"][1], confirm=False).findings[0]
    assert " in the loss (" in found.cause


def test_a_flat_operation_is_named_with_its_line() -> None:
    torch.manual_seed(0)
    found = unvanish.check(Net(torch.round), _batch(), entropy, confirm=False).findings[0]
    assert found.code == "GRF004" and "test_nonfinite.py:" in found.cause


@pytest.mark.parametrize("late", [True, False])
def test_targets_that_are_masked_too_late_are_the_cause(late: bool) -> None:
    torch.manual_seed(0)
    y = torch.randn(32, 4)
    y[3] = math.nan

    def loss(out: Tensor, y: Tensor) -> Tensor:
        there = ~torch.isnan(y)
        return (
            F.mse_loss(out, y, reduction="none")[there].mean() if late else F.mse_loss(out[there], y[there])
        )

    found = unvanish.check(Net(lambda z: z), (torch.randn(32, 16), y), loss, confirm=False).findings
    assert [f.code for f in found] == ["NUM001"] * late
    assert not late or ("is in target (" in found[0].cause and found[0].remedies[0].cure == "mask-before")


def test_good_masks_leave_the_blame_where_it_belongs() -> None:
    torch.manual_seed(0)
    y = torch.randn(32, 4)
    y[3] = math.nan

    def loss(out: Tensor, y: Tensor) -> Tensor:
        there = ~torch.isnan(y)
        return F.mse_loss(out[there], y[there])

    rooted = Net(lambda z: z + (z - z.detach()).square().sum(1, keepdim=True).sqrt())
    found = unvanish.check(rooted, (torch.randn(32, 16), y), loss, confirm=False).findings[0]
    assert found.cause.startswith("sqrt makes")
