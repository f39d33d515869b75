"""The trials of a proof: two short trainings from equal seeds, compared without regard to scale."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unvanish.clinic.samples import ProofSamples, divide
from unvanish.clinic.trials import (
    CLOSE,
    PairedTrial,
    Training,
    draw_afresh,
    judge_trials,
    measure_lag,
    needs_more_trials,
    read_blind_loss,
    train_copy,
)

CE = nn.CrossEntropyLoss()


def sigmoid_net(depth: int) -> nn.Module:
    torch.manual_seed(0)
    parts = [p for _ in range(depth) for p in (nn.Linear(16, 16), nn.Sigmoid())]
    return nn.Sequential(*parts, nn.Linear(16, 3))


def batch(n: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 16, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def whole() -> ProofSamples:
    return divide((batch(15),))


@pytest.mark.parametrize(
    ("before", "after", "comparable", "wanted"),
    [
        ((2.0, 1.9, 1.8), (2.0, 1.0, 0.1), True, "better"),
        ((2.0, 1.0, 0.1), (2.0, 1.9, 1.8), True, "worse"),
        ((2.0, 1.0, 0.1), (2.0, 1.0, 0.15), True, "no effect"),
        ((1e30, 1e20, 1e10), (2.0, 1.0, 0.5), True, "better"),
        ((2.0, 1.0, 0.1), (2.0, math.nan), True, "worse"),
        ((2.0, math.nan), (2.0, 1.0, 0.5), True, "better"),
        ((math.nan,), (math.inf,), True, "worse"),
        ((0.5, 0.5, 0.5), (9.0, 5.0, 1.0), False, "better"),
        ((0.5, 0.2, 0.1), (9.0, 9.0, 9.0), False, "worse"),
        ((1e-9, 1e-9, 1e-9), (1e-9, 1e-10, 1e-12), True, "better"),
    ],
)
def test_two_trainings_are_compared(before: Any, after: Any, comparable: bool, wanted: str) -> None:
    assert judge_trials((measure_lag(before, after, comparable),)) == wanted


def test_trials_go_on_while_chance_may_decide() -> None:
    assert needs_more_trials([]) and needs_more_trials([-0.5]) and needs_more_trials([0.05])
    assert not needs_more_trials([0.3]), "clearly worse"
    assert not needs_more_trials([-0.5, 0.01]) and needs_more_trials([-0.5, 0.05])
    assert needs_more_trials([0.05, 0.05, 0.05, 0.05]) and not needs_more_trials([0.05] * 5)
    assert judge_trials([-0.5, 0.3]) == "worse", "what is worse in one of the first two"
    assert judge_trials([0.08, 0.08, 0.07, 0.02, 0.01]) == "worse", "a tighter limit for the median of many"
    assert judge_trials([0.08, -0.3, 0.3, -0.2, -0.15]) == "better"
    assert judge_trials([0.08, 0.0]) == "no effect"


def test_how_far_one_training_is_behind_another() -> None:
    before, after = (2.0, 1.0, *[0.1] * 5), (1.0, 0.5, *[0.3] * 5)
    assert measure_lag(before, after) == pytest.approx(0.2)
    assert measure_lag(before, after, comparable=False) == pytest.approx(0.3 - 0.05)
    assert measure_lag((2.0, 1.0, 0.1), (2.0, math.nan)) == math.inf
    assert measure_lag((2.0, math.nan), (2.0, 1.0)) == -math.inf


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_comparison_does_not_depend_on_the_scale_of_the_loss(factor: float) -> None:
    net = sigmoid_net(3)
    plain = train_copy(copy.deepcopy(net), whole(), CE, steps=20).seen
    scaled = train_copy(copy.deepcopy(net), whole(), lambda o, y: factor * CE(o, y), steps=20).seen
    assert [x / plain[0] for x in plain] == pytest.approx([x / scaled[0] for x in scaled], rel=0.05)


def test_training_does_not_touch_the_model_or_the_random_generator() -> None:
    net = nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    one = train_copy(net, whole(), CE, steps=10, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert one == train_copy(net, whole(), CE, steps=10, seed=3)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_loss_that_falls_without_end_makes_no_progress() -> None:
    endless, own = Training((1.0, -50.0, -900.0)), Training((2.0, 1.0, 0.5))
    assert PairedTrial(endless, own, comparable=True).lag > 0
    assert PairedTrial(endless, own, comparable=True, endless=True).lag == pytest.approx(-0.5, abs=0.3)
    assert PairedTrial(endless, Training((2.0, math.nan)), comparable=True, endless=True).lag == math.inf


def test_on_unseen_samples_the_loss_counts_where_it_was_lowest() -> None:
    before, after = (2.0,) * 20, (2.0, *[1.0] * 8, *[3.0] * 11)
    assert measure_lag(before, after) == pytest.approx(0.5)
    assert measure_lag(before, after, unseen=True) == pytest.approx(-0.5)


def wide() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 3))


def test_what_is_learned_by_heart_alone_proves_nothing() -> None:
    training = train_copy(wide(), divide((batch(64),)), CE)  # labels without a pattern
    assert training.seen[-1] < 0.5 * training.seen[0] and not training.learns
    flat = Training((1.1,) * 61, (1.1,) * 61)
    assert PairedTrial(flat, training, True).lag == -0.1  # no effect
    assert judge_trials([PairedTrial(flat, training, True).lag]) == "no effect"
    assert judge_trials([PairedTrial(training, flat, True).lag]) == "worse"


def test_a_pattern_is_learned_on_unseen_samples_too() -> None:
    x, _ = batch(512)
    training = train_copy(wide(), divide(((x, (x[:, 0] > 0).long()),)), CE)
    flat = Training((1.1,) * 61, (1.1,) * 61)
    assert training.learns
    assert judge_trials([PairedTrial(flat, training, True).lag]) == "better"
    assert judge_trials([PairedTrial(training, flat, True).lag]) == "worse"


def test_the_optimizer_of_the_user_trains_too() -> None:
    net = sigmoid_net(1)
    stalled = torch.optim.SGD(net.parameters(), 1e-9)
    fast = torch.optim.SGD(net.parameters(), 3.0)
    with_stalled, with_fast = (train_copy(net, whole(), CE, o, steps=30).seen for o in (stalled, fast))
    assert with_stalled[-1] < 0.98 * with_stalled[0]  # Adam's, the better one
    assert with_fast[-1] < with_stalled[-1]


def test_beside_a_side_that_breaks_only_an_own_fall_counts() -> None:
    broken = Training((2.0, math.nan))
    assert not PairedTrial(broken, Training((2.0,) * 9), True).has_rival
    assert judge_trials([PairedTrial(broken, Training((2.0,) * 9), True).lag]) == "no effect"
    assert judge_trials([PairedTrial(broken, Training((2.0, 1.0, *[0.1] * 7)), True).lag]) == "better"
    assert judge_trials([PairedTrial(broken, Training((2.0, 3.0, *[5.0] * 7)), True).lag]) == "worse"


def test_trainings_that_are_alike_at_every_step_are_equal() -> None:
    one, other = Training((2.0, 1.5, 1.0)), Training((2.0, 1.5005, 0.9995))
    assert PairedTrial(one, other, True).is_equal
    assert not PairedTrial(one, other, False).is_equal, "losses of different functions"
    assert not PairedTrial(one, Training((2.0, 1.5, 0.9)), True).is_equal
    assert not PairedTrial(one, Training((2.0, 1.5)), True).is_equal


def test_if_both_learned_the_pattern_a_few_unseen_samples_make_no_side_worse() -> None:
    before = Training((2.0, *[0.1] * 9), (2.0, *[0.2] * 9))
    ahead, behind = (
        Training((2.0, *[0.01] * 9), (2.0, *[0.6] * 9)),
        Training((2.0, *[0.7] * 9), (2.0, *[0.6] * 9)),
    )
    assert judge_trials([PairedTrial(before, ahead, True).lag]) == "no effect"
    assert judge_trials([PairedTrial(before, behind, True).lag]) == "worse", "behind on its own batch too"
    memory = Training((2.0, *[0.01] * 9), (2.0, *[1.9] * 9))
    assert judge_trials([PairedTrial(before, memory, True).lag]) == "worse", "it learned by heart alone"


@pytest.mark.parametrize(("scale", "centre"), [(1.0, 0.0), (1e4, 3e4)])
def test_the_best_answer_without_the_input_is_found(scale: float, centre: float) -> None:
    x, y = torch.randn(32, 4), scale * torch.randn(32, 2) + centre
    found = read_blind_loss(nn.Linear(4, 2), (x, y), nn.MSELoss())
    assert found == pytest.approx(float(y.var(0, correction=0).mean()), rel=1e-3)


def test_the_best_answer_of_classes_is_their_entropy() -> None:
    y = torch.tensor([0] * 24 + [1] * 8)
    found = read_blind_loss(nn.Linear(4, 2), (torch.randn(32, 4), y), CE)
    assert found == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), rel=1e-3)
    assert read_blind_loss(nn.Linear(4, 2), (torch.randn(4, 4), y[:4]), CE) == math.inf, "too few samples"
    assert read_blind_loss(nn.Linear(4, 2), (torch.randn(32, 4), y), lambda o, y: -o.sum()) == math.inf


def test_what_breaks_under_the_user_s_optimizer_does_not_train() -> None:
    net = nn.Linear(16, 3)
    wild, tame = (torch.optim.SGD(net.parameters(), rate) for rate in (1e6, 1e-2))

    def squares(out: Tensor, y: Tensor) -> Tensor:
        return out.square().mean()

    assert not math.isfinite(train_copy(net, whole(), squares, wild).seen[-1])
    assert math.isfinite(train_copy(net, whole(), squares, tame).seen[-1])


def test_what_is_behind_under_the_user_s_own_optimizer_is_behind() -> None:
    best, slow, fast = (2.0, 1.0, 0.2), Training((2.0, 2.0, 1.9)), Training((2.0, 1.0, 0.3))
    assert PairedTrial(Training(best, own=fast), Training(best, own=slow), True).lag == pytest.approx(
        0.5
    )  # of medians
    assert PairedTrial(Training(best, own=slow), Training(best, own=fast), True).lag == 0.0
    assert PairedTrial(Training(best), Training(best, own=slow), True).lag == 0.0
    broken = Training((2.0, math.nan))
    assert PairedTrial(broken, Training(best, own=slow), True).lag < -CLOSE


def test_both_sides_are_trained_by_the_user_s_own_optimizer_too() -> None:
    net = sigmoid_net(1)
    found = train_copy(net, whole(), CE, torch.optim.SGD(net.parameters(), 0.01), steps=5)
    assert found.own is not None and len(found.own.seen) == 6 and found.own.own is None
    assert found.seen[-1] <= found.own.seen[-1]
    assert train_copy(net, whole(), CE, steps=5).own is None


def test_a_copy_is_drawn_afresh_where_torch_can_draw_all_its_weights() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GRU(8, 8))
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.Adam(net.parameters())
    random = torch.get_rng_state()
    drawn = draw_afresh(net, optimizer, 3)
    assert drawn is not None and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not torch.equal(drawn[0][0].weight, net[0].weight)
    assert drawn[1].param_groups[0]["params"][0] is drawn[0][0].weight
    net.scale = nn.Parameter(torch.ones(1))
    assert draw_afresh(net, optimizer, 3) is None
