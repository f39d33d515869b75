"""Faults as people write them, each beside the same code mended; and designs that only look like faults."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish

Made = tuple[nn.Module, Any, Any]


def mlp(enter: int, leave: int, width: int = 32, depth: int = 1) -> nn.Sequential:
    parts: list[nn.Module] = [nn.Linear(enter, width), nn.ReLU()]
    for _ in range(depth - 1):
        parts += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, leave))


def labelled(leave: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(64, 16), torch.randint(0, leave, (64,))


def far_targets_of_a_softplus(sick: bool) -> Made:
    y = torch.rand(64, 1) * 9000 + 500
    return mlp(16, 1).append(nn.Softplus()), (torch.randn(64, 16), y if sick else y / 5000), nn.L1Loss()


def swapped_divergence(sick: bool) -> Made:
    def loss(o: Tensor, t: Tensor) -> Tensor:
        log = o.log_softmax(-1)
        return F.kl_div(*((t, log) if sick else (log, t)), reduction="batchmean")

    return mlp(16, 6), (torch.randn(64, 16), torch.randn(64, 6).softmax(-1)), loss


def softmax_by_hand(sick: bool) -> Made:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        e = (torch.sigmoid(o) if sick else o).exp()
        return -torch.log((e / e.sum(1, keepdim=True))[torch.arange(len(y)), y]).mean()

    return mlp(16, 5), labelled(5), loss


class Ensemble(nn.Module):
    """The mean of four nets."""

    def __init__(self, copied: bool) -> None:
        super().__init__()
        first = mlp(16, 4)
        self.nets = nn.ModuleList(copy.deepcopy(first) if copied else mlp(16, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in self.nets]).mean(0)


def copied_members(sick: bool) -> Made:
    return Ensemble(sick), labelled(), nn.CrossEntropyLoss()


class Last(nn.Module):
    """The last state of an LSTM, read; `constant`: all weights are one number."""

    def __init__(self, constant: bool) -> None:
        super().__init__()
        self.r, self.o = nn.LSTM(6, 16, batch_first=True), nn.Linear(16, 2)
        for p in self.parameters() if constant else ():
            nn.init.constant_(p, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.o(self.r(x)[0][:, -1])
        return out


def constant_weights(sick: bool) -> Made:
    return Last(sick), (torch.randn(16, 8, 6), torch.randint(0, 2, (16,))), nn.CrossEntropyLoss()


class ByHand(nn.Module):
    """A recurrence by hand, over eight steps."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.enter, self.again, self.o, self.cut = nn.Linear(3, 16), nn.Linear(16, 16), nn.Linear(16, 2), cut
        nn.init.orthogonal_(self.again.weight)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 16)
        for t in range(x.shape[1]):
            state = torch.tanh(self.enter(x[:, t]) + self.again(state.detach() if self.cut else state))
        out: Tensor = self.o(state)
        return out


def state_cut(sick: bool) -> Made:
    return ByHand(sick), (0.3 * torch.randn(16, 8, 3), torch.randint(0, 2, (16,))), nn.CrossEntropyLoss()


class Taught(nn.Module):
    """A student, and what a frozen teacher says."""

    def __init__(self) -> None:
        super().__init__()
        self.s, self.t = mlp(16, 8), mlp(16, 8).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            known = self.t(x)
        return self.s(x), known


def led_away(sick: bool) -> Made:
    sign = 1 if sick else -1
    return Taught(), torch.randn(64, 16), lambda o: sign * F.cosine_similarity(*o, dim=-1).mean()


class Actor(nn.Module):
    """A Gaussian policy, as a distribution."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.log = mlp(16, 2), nn.Parameter(torch.full((2,), -0.5))

    def forward(self, x: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.mean(x), self.log.exp())


def rewarded(sick: bool) -> Made:
    def loss(law: Any, known: tuple[Tensor, Tensor]) -> Tensor:
        done, gain = known
        value: Tensor = law.log_prob(done).sum(-1) * (gain - gain.mean())
        return value.mean() if sick else -value.mean()

    return Actor(), (torch.randn(64, 16), (torch.randn(64, 2), torch.randn(64))), loss


SICK: dict[str, Callable[[bool], Made]] = {
    "OUT005": far_targets_of_a_softplus,
    "OUT002": swapped_divergence,
    "OUT002 by hand": softmax_by_hand,
    "LOS002 of a cosine": led_away,
    "LOS002 of rewards": rewarded,
    "INI003 of copies": copied_members,
    "INI003 of constants": constant_weights,
    "REC001": state_cut,
}


@pytest.mark.parametrize("name", SICK)
def test_the_cause_comes_first_and_the_mended_code_is_left_alone(name: str) -> None:
    torch.manual_seed(0)
    found = unvanish.check(*SICK[name](True)).at_least("warning")
    assert found[0].code == name.split()[0]
    torch.manual_seed(0)
    assert unvanish.check(*SICK[name](False)).at_least("warning") == ()


def test_the_cell_of_a_recurrence_by_hand_is_named() -> None:
    torch.manual_seed(0)
    found = unvanish.check(*state_cut(True)).at_least("warning")[0]
    assert found.cause.startswith("the state of again leaves the graph") and found.sites == ("again",)


SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a loop": lambda o, y: sum(((o[i] - y[i]) ** 2).mean() for i in range(len(y))),  # type: ignore[return-value]
    "an einsum": lambda o, y: torch.einsum("bc,bc->", (e := o - y), e),
    "a squared norm": lambda o, y: torch.norm(o - y) ** 2,
    "a product": lambda o, y: ((e := o - y) * e).sum(),
    "a stack": lambda o, y: torch.stack([F.mse_loss(o[i], y[i]) for i in range(len(y))]).sum(),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("mean", [False, True])
def test_a_sum_over_the_batch_is_noted_in_any_notation(name: str, mean: bool) -> None:
    torch.manual_seed(0)
    net, batch = mlp(8, 2), (torch.randn(40, 8), torch.randn(40, 2))
    found = unvanish.check(net, batch, lambda o, y: SUMS[name](o, y) / (len(y) if mean else 1))
    assert ("LOS003" in [f.code for f in found.findings]) is not mean


class Field(nn.Module):
    """A radiance field of eight layers at torch's own start, its input joined again in the middle."""

    def __init__(self) -> None:
        super().__init__()
        wide = [nn.Linear(39, 64), *(nn.Linear(64 + 39 * (i == 3), 64) for i in range(7))]
        self.layers, self.head = nn.ModuleList(wide), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        waves = [f(2**i * math.pi * x) for i in range(6) for f in (torch.sin, torch.cos)]
        enter = h = torch.cat([x, *waves], -1)
        for i, layer in enumerate(self.layers):
            h = torch.relu(layer(torch.cat([h, enter], -1) if i == 4 else h))
        return torch.sigmoid(self.head(h))


class Picking(nn.Module):
    """A code of a table, chosen by a straight-through Gumbel softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.table, self.o = mlp(16, 8), nn.Parameter(torch.randn(8, 24) * 0.3), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.o(F.gumbel_softmax(self.body(x), hard=True) @ self.table)
        return out


class Stateless(nn.Module):
    """A recurrent step from a state of zeros, whose matrix gets no gradient yet."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again, self.o = nn.Linear(16, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.o(torch.tanh(self.enter(x) + self.again(torch.zeros(len(x), 16))))
        return out


def unlike_columns(z: Tensor) -> Tensor:
    a, b = ((v - v.mean(0)) / (v.std(0) + 1e-5) for v in z.chunk(2))
    c = a.T @ b / len(a)
    own = c.diagonal()
    return (1 - own).pow(2).sum() + 5e-3 * (c.pow(2).sum() - own.pow(2).sum())


X = torch.randn(64, 16)
SOUND: dict[str, Callable[[], Made]] = {
    "a field at torch's own start": lambda: (Field(), (torch.rand(256, 3), torch.rand(256, 4)), nn.MSELoss()),
    "five layers at torch's own start": lambda: (mlp(16, 4, 128, 5), labelled(), nn.CrossEntropyLoss()),
    "a softmax that picks": lambda: (Picking(), labelled(), nn.CrossEntropyLoss()),
    "the whole less its diagonal": lambda: (mlp(16, 16, 64), torch.cat([X, X + 0.1]), unlike_columns),
    "a state of zeros": lambda: (Stateless(), labelled(), nn.CrossEntropyLoss()),
    "members of their own": lambda: (Ensemble(False), labelled(), nn.CrossEntropyLoss()),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_only_looks_like_a_fault_is_left_alone(name: str) -> None:
    torch.manual_seed(0)
    assert unvanish.check(*SOUND[name]()).at_least("warning") == ()
