"""Losses by hand that ask for the reverse of what the batch gives, and those that weigh on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

N = 48
G = torch.Generator().manual_seed(0)
X, DONE, RETURN = (
    torch.randn(N, 8, generator=G),
    torch.randint(0, 4, (N,), generator=G),
    torch.randn(N, generator=G),
)
MOVED = torch.randn(N, 2, generator=G)
Loss = Callable[[Any, Any], Tensor]


class Agent(nn.Module):
    """Scores of four actions, and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.score, self.value = nn.Linear(8, 32), nn.Linear(32, 4), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.body(x))
        return self.score(h), self.value(h).squeeze(-1)


def log_p(scores: Tensor, done: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=scores).log_prob(done)  # type: ignore[no-any-return, no-untyped-call]


def plain(o: Any, y: Any) -> Tensor:
    return -(log_p(o[0], y[0]) * y[1]).mean()


def with_value(o: Any, y: Any) -> Tensor:
    advantage = (y[1] - o[1]).detach()
    return -(log_p(o[0], y[0]) * advantage).mean()


def without_graph(o: Any, y: Any) -> Tensor:
    with torch.no_grad():
        advantage = y[1] - o[1]
        advantage = (advantage - advantage.mean()) / advantage.std()
    return -(log_p(o[0], y[0]) * advantage).mean()


def clipped(o: Any, y: Any) -> Tensor:
    p = log_p(o[0], y[0])
    ratio = (p - p.detach()).exp()
    return -torch.min(ratio * y[1], ratio.clamp(0.8, 1.2) * y[1]).mean()


def by_cross_entropy(o: Any, y: Any) -> Tensor:
    return (functional.cross_entropy(o[0], y[0], reduction="none") * y[1]).mean()


def by_one_hot(o: Any, y: Any) -> Tensor:
    return -((o[0].log_softmax(1) * functional.one_hot(y[0], 4)).sum(1) * y[1]).mean()


def with_entropy(o: Any, y: Any) -> Tensor:
    p = torch.distributions.Categorical(logits=o[0])  # type: ignore[no-untyped-call]
    return -(p.log_prob(y[0]) * y[1]).mean()  # type: ignore[no-any-return, no-untyped-call]


POLICIES = [plain, with_value, without_graph, clipped, by_cross_entropy, by_one_hot, with_entropy]


def judge(model: nn.Module, y: Any, loss: Loss, **options: Any) -> tuple[str, ...]:
    found = unvanish.check(model, (X, y), loss, confirm=False, select=["LOS002", "OUT006"], **options)
    return found.codes("note")


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_led_away_from_its_rewards_is_named(policy: Loss, positive: bool) -> None:
    torch.manual_seed(0)
    y = DONE, RETURN.abs() + 0.1 if positive and policy not in (with_value, without_graph) else RETURN
    assert judge(Agent(), y, lambda o, y: -policy(o, y) + functional.mse_loss(o[1], y[1])) == ("LOS002",)
    assert judge(Agent(), y, lambda o, y: policy(o, y) + functional.mse_loss(o[1], y[1])) == ()


def test_an_advantage_the_wrong_way_round_is_named() -> None:
    torch.manual_seed(0)

    def turned(o: Any, y: Any) -> Tensor:
        return -(log_p(o[0], y[0]) * (o[1] - y[1]).detach()).mean()

    assert judge(Agent(), (DONE, RETURN), turned) == ("LOS002",)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_policy_of_numbers_is_judged_by_its_mean(sign: int) -> None:
    torch.manual_seed(0)

    def loss(o: Tensor, y: Any) -> Tensor:
        normal = torch.distributions.Normal(o, 1.0)  # type: ignore[no-untyped-call]
        return -sign * (normal.log_prob(y[0]).sum(-1) * y[1]).mean()  # type: ignore[no-any-return, no-untyped-call]

    assert judge(nn.Linear(8, 2), (MOVED, RETURN), loss) == (() if sign == 1 else ("LOS002",))


def test_weights_of_an_error_and_preferences_are_meant() -> None:
    torch.manual_seed(0)
    other = (DONE + 1) % 4

    def weighed(o: Tensor, y: Any) -> Tensor:
        return ((o - y[0]).square().sum(1) * y[1]).mean()

    def preferred(o: Any, y: Any) -> Tensor:
        return -functional.logsigmoid(0.1 * (log_p(o[0], y[0]) - log_p(o[0], y[1]))).mean()

    assert judge(nn.Linear(8, 2), (MOVED, RETURN.abs()), weighed) == ()
    assert judge(Agent(), (DONE, other), preferred) == ()


@pytest.mark.parametrize("sign", [1, -1])
def test_an_output_against_its_numbers_is_named(sign: int) -> None:
    torch.manual_seed(0)

    def correlation(o: Tensor, y: Tensor) -> Tensor:
        o, y = o.squeeze(1) - o.mean(), y - y.mean()
        return -sign * (o * y).sum() / (o.norm() * y.norm())

    assert judge(nn.Linear(8, 1), RETURN, correlation) == (() if sign == 1 else ("LOS002",))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_signal_ratio_that_is_to_fall_is_named(sign: int) -> None:
    torch.manual_seed(0)

    def ratio(o: Tensor, y: Tensor) -> Tensor:
        heard = (o * y).sum(1, keepdim=True) / y.square().sum(1, keepdim=True) * y
        return -sign * 10 * torch.log10(heard.square().sum(1) / (o - heard).square().sum(1)).mean()

    y = torch.randn(N, 16, generator=torch.Generator().manual_seed(1))
    assert judge(nn.Linear(8, 16), y, ratio) == (() if sign == 1 else ("LOS002",))


@pytest.mark.parametrize("sign", [1, -1])
def test_embeddings_that_leave_their_own_label_are_named(sign: int) -> None:
    torch.manual_seed(0)

    def triplets(o: Tensor, y: Tensor) -> Tensor:
        far, same = torch.cdist(o, o), (y[:, None] == y[None]).float()
        own, other = (far * same).sum(1) / same.sum(1), (far * (1 - same)).sum(1) / (1 - same).sum(1)
        return functional.relu(sign * (own - other) + 0.5).mean()

    assert judge(nn.Linear(8, 6), DONE, triplets) == (() if sign == 1 else ("LOS002",))


def test_a_hinge_on_scores_is_no_distance() -> None:
    def hinge(o: Tensor, y: Tensor) -> Tensor:
        return functional.relu(1 - (2 * y - 1)[:, None] * o).mean()

    for outputs in (1, 3):
        for seed in range(4):
            torch.manual_seed(seed)
            assert judge(nn.Linear(8, outputs), DONE % 2, hinge) == ()


@pytest.mark.parametrize("sign", [1, -1])
def test_probabilities_over_those_of_the_past_are_judged_too(sign: int) -> None:
    torch.manual_seed(0)

    def propensity(o: Any, y: Any) -> Tensor:
        return -sign * (y[1] * o[0].softmax(1).gather(1, y[0][:, None]).squeeze(1) / 0.4).mean()

    assert judge(Agent(), (DONE, RETURN), propensity) == (() if sign == 1 else ("LOS002",))


def test_domains_that_are_to_be_alike_are_meant() -> None:
    torch.manual_seed(0)

    def discrepancy(o: Tensor, y: Tensor) -> Tensor:
        a, b = o[y == 0], o[y == 1]
        return (a.mean(0) - b.mean(0)).square().sum()

    assert judge(nn.Linear(8, 6), DONE % 2, discrepancy) == ()


@pytest.mark.parametrize("sign", [1, -1])
def test_partners_on_the_diagonal_are_to_be_raised(sign: int) -> None:
    torch.manual_seed(0)

    def partners(o: Tensor) -> Tensor:
        z = functional.normalize(o, dim=1)
        return -sign * (z @ z.roll(1, 0).T / 0.1).log_softmax(1).diagonal().mean()

    found = unvanish.check(nn.Linear(8, 6), X, partners, confirm=False, select=["LOS002"])
    assert found.codes() == (() if sign == 1 else ("LOS002",))


@pytest.mark.parametrize(("up", "raised"), [(True, False), (True, True), (False, False)])
def test_an_optimizer_that_goes_up_an_error_is_named(up: bool, raised: bool) -> None:
    torch.manual_seed(0)
    net = nn.Linear(8, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, maximize=up)
    loss = (lambda o, y: -functional.cross_entropy(o, y)) if raised else nn.CrossEntropyLoss()
    assert judge(net, DONE, loss, optimizer=optimizer) == (("LOS002",) if up and not raised else ())
    reward = lambda o, y: (1 - 2 * raised) * (o - y).square().mean()  # noqa: E731
    assert judge(net, RETURN[:, None] * torch.ones(4), reward, optimizer=optimizer) == (
        ("LOS002",) if up and not raised else ()
    )
