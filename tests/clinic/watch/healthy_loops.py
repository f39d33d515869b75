"""Training loops that are as they should be, of many kinds; each takes what opens a watch, and trains."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Open = Callable[..., Any]  # (model, optimizer, loss, **options): the watch
LOOPS: dict[str, Callable[[Open], None]] = {}
STEPS = 150


def loop(run: Callable[[Open], None]) -> Callable[[Open], None]:
    """Note a loop by its name."""
    LOOPS[run.__name__] = run
    return run


def draw(n: int = 512, width: int = 20, classes: int = 5) -> tuple[Tensor, Tensor]:
    """A problem that can be learned."""
    made = torch.Generator().manual_seed(7)
    x = torch.randn(n, width, generator=made)
    return x, (torch.tanh(x) @ torch.randn(width, classes, generator=made)).argmax(1)


def batches(steps: int = STEPS, size: int = 64, **options: int) -> Any:
    """Random batches of it."""
    x, y = draw(**options)
    for _ in range(steps):
        chosen = torch.randint(0, len(x), (size,))
        yield x[chosen], y[chosen]


def mlp(width: int = 20, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 64),
        nn.ReLU(),
        nn.LayerNorm(64),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )


def fit(
    watching: Open,
    model: nn.Module,
    optimizer: Any,
    *,
    prepare: Callable[[Tensor], Tensor] = lambda x: x,
    after: Callable[[int], None] = lambda step: None,
    before_step: Callable[[int], None] = lambda step: None,
    steps: int = STEPS,
) -> None:
    """An ordinary classifier's loop."""
    loss = nn.CrossEntropyLoss()
    with watching(model, optimizer, loss):
        for step, (x, y) in enumerate(batches(steps)):
            optimizer.zero_grad()
            loss(model(prepare(x)), y).backward()
            before_step(step)
            optimizer.step()
            after(step)


def schedule(make: Callable[[Any], Any], rate: float = 2e-3) -> Callable[[Open], None]:
    def run(watching: Open) -> None:
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), rate)
        plan = make(optimizer)
        fit(watching, model, optimizer, after=lambda _: plan.step())

    return run


PLANS = torch.optim.lr_scheduler
LOOPS |= {
    "cosine_to_zero": schedule(lambda o: PLANS.CosineAnnealingLR(o, STEPS)),
    "warmup_from_zero": schedule(lambda o: PLANS.LambdaLR(o, lambda s: min(1.0, s / 40))),
    "linear_to_zero": schedule(lambda o: PLANS.LambdaLR(o, lambda s: max(0.0, 1 - s / STEPS))),
    "warmup_by_a_constant": schedule(lambda o: PLANS.ConstantLR(o, 0.1, 30)),
    "cyclic": schedule(lambda o: PLANS.CyclicLR(o, 1e-4, 5e-3, 20, cycle_momentum=False)),
    "restarts": schedule(lambda o: PLANS.CosineAnnealingWarmRestarts(o, 40)),
    "one_cycle": schedule(lambda o: PLANS.OneCycleLR(o, 1e-2, STEPS)),
    "exponential": schedule(lambda o: PLANS.ExponentialLR(o, 0.97)),
    "steps_down": schedule(lambda o: PLANS.StepLR(o, 60, 0.1)),
}


@loop
def sgd_with_momentum(watching: Open) -> None:
    model = mlp()
    fit(watching, model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4))


@loop
def small_rate_that_learns(watching: Open) -> None:
    model = mlp()
    fit(watching, model, torch.optim.Adam(model.parameters(), 1e-4), steps=250)


@loop
def strong_decay_that_learns(watching: Open) -> None:
    model = mlp()
    fit(watching, model, torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.5))


@loop
def grads_zeroed_in_place(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with watching(model, optimizer, loss):
        for x, y in batches():
            optimizer.zero_grad(set_to_none=False)
            loss(model(x), y).backward()
            optimizer.step()


@loop
def grads_cleared_after_the_step(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with watching(model, optimizer, loss):
        for x, y in batches():
            loss(model(x), y).backward()
            optimizer.step()
            model.zero_grad(set_to_none=False)


@loop
def accumulation_divided(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with watching(model, optimizer, loss):
        for x, y in batches():
            for px, py in zip(x.chunk(8), y.chunk(8), strict=True):
                (loss(model(px), py) / 8).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)


@loop
def accumulation_of_sums(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss(reduction="sum")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with watching(model, optimizer, loss):
        for x, y in batches():
            optimizer.zero_grad()
            for px, py in zip(x.chunk(8), y.chunk(8), strict=True):
                loss(model(px), py).backward()
            optimizer.step()


@loop
def accumulation_divided_at_the_step(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with watching(model, optimizer, loss):
        for x, y in batches():
            optimizer.zero_grad()
            for px, py in zip(x.chunk(8), y.chunk(8), strict=True):
                loss(model(px), py).backward()
            for p in model.parameters():
                p.grad /= 8
            optimizer.step()


@loop
def clipped_at_the_usual_norm(watching: Open) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    fit(watching, model, optimizer, before_step=lambda _: _clip(model, 1.0))


def _clip(model: nn.Module, limit: float) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), limit)


@loop
def bad_batches_skipped_by_zeroed_grads(watching: Open) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def skip(step: int) -> None:
        if step % 7 == 3:
            optimizer.zero_grad(set_to_none=step % 2 == 0)

    fit(watching, model, optimizer, before_step=skip)


@loop
def bad_batches_left_out(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with watching(model, optimizer, loss):
        for step, (x, y) in enumerate(batches()):
            value = loss(model(x * (math.nan if step % 9 == 4 else 1.0)), y)
            if not torch.isfinite(value):
                continue
            optimizer.zero_grad()
            value.backward()
            optimizer.step()


@loop
def bfloat16_autocast(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with watching(model, optimizer, loss):
        for x, y in batches():
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(model(x), y)
            value.backward()
            optimizer.step()


@loop
def bfloat16_weights_at_a_rate_they_hold(watching: Open) -> None:
    model, loss = mlp().bfloat16(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    plan = PLANS.CosineAnnealingLR(optimizer, STEPS)
    with watching(model, optimizer, loss):
        for x, y in batches():
            optimizer.zero_grad()
            loss(model(x.bfloat16()).float(), y).backward()
            optimizer.step()
            plan.step()


@loop
def loss_scaled(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu")
    with watching(model, optimizer, loss, scaler=scaler):
        for x, y in batches(100):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                value = loss(model(x).float(), y)
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()


@loop
def frozen_backbone(watching: Open) -> None:
    model = mlp()
    model[0].requires_grad_(False)
    fit(watching, model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3))


@loop
def frozen_backbone_in_the_optimizer(watching: Open) -> None:
    model = mlp()
    model[:4].requires_grad_(False)
    fit(watching, model, torch.optim.AdamW(model.parameters(), 3e-3))


@loop
def gradual_unfreezing(watching: Open) -> None:
    model = mlp()
    model[:5].requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    def thaw(step: int) -> None:
        if step == 50:
            model[3].requires_grad_(True)
        if step == 100:
            model.requires_grad_(True)

    fit(watching, model, optimizer, after=thaw)


@loop
def groups_of_their_own_rates(watching: Open) -> None:
    model = mlp()
    groups = [{"params": model[:3].parameters(), "lr": 1e-5}, {"params": model[3:].parameters()}]
    fit(watching, model, torch.optim.AdamW(groups, 3e-3))


class LoRA(nn.Module):
    """A frozen layer beside a low-rank one whose second half begins at zero."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(0.3 * torch.randn(4, layer.in_features))
        self.b = nn.Parameter(torch.zeros(layer.out_features, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.a.T @ self.b.T


@loop
def low_rank_adapters(watching: Open) -> None:
    model = mlp()
    for i in (0, 3, 5):
        model[i] = LoRA(model[i])
    fit(watching, model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-3))


@loop
def running_mean_of_the_weights(watching: Open) -> None:
    model = mlp()
    teacher = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    @torch.no_grad()
    def follow(_: int) -> None:
        for t, p in zip(teacher.parameters(), model.parameters(), strict=True):
            t.lerp_(p, 0.01)

    fit(watching, model, optimizer, after=follow)


@loop
def averaged_weights(watching: Open) -> None:
    model = mlp()
    mean = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    plan = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.01, anneal_epochs=20)

    def follow(step: int) -> None:
        if step > 80:
            mean.update_parameters(model)
            plan.step()

    fit(watching, model, optimizer, after=follow)


@loop
def sharpness_aware(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with watching(model, optimizer, loss):
        for x, y in batches(100):
            loss(model(x), y).backward()
            moved = []
            with torch.no_grad():
                for p in model.parameters():
                    moved.append(0.02 * p.grad / (p.grad.norm() + 1e-12))
                    p += moved[-1]
            optimizer.zero_grad()
            loss(model(x), y).backward()
            with torch.no_grad():
                for p, change in zip(model.parameters(), moved, strict=True):
                    p -= change
            optimizer.step()
            optimizer.zero_grad()


@loop
def lbfgs(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.LBFGS(model.parameters(), 0.5, max_iter=4, line_search_fn="strong_wolfe")
    x, y = draw(128)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        return value

    with watching(model, optimizer, loss):
        for _ in range(40):
            optimizer.step(closure)


@loop
def convolutions(watching: Open) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 5),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    fit(watching, model, optimizer, prepare=lambda x: F.pad(x, (0, 44)).view(-1, 1, 8, 8), steps=100)


class Residual(nn.Module):
    """A block whose second weight begins at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.a, self.b = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.gelu(self.a(self.norm(x))))


@loop
def zero_initialised_branches(watching: Open) -> None:
    model = nn.Sequential(nn.Linear(20, 64), *(Residual(64) for _ in range(4)), nn.Linear(64, 5))
    fit(watching, model, torch.optim.AdamW(model.parameters(), 1e-3), steps=100)


class Reader(nn.Module):
    """A recurrent classifier of sequences."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.core, self.head = kind(4, 32, batch_first=True), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x.view(len(x), 5, 4))[0][:, -1])


@loop
def recurrent(watching: Open) -> None:
    model = Reader(nn.RNN)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    fit(watching, model, optimizer, before_step=lambda _: _clip(model, 1.0), steps=100)


@loop
def long_memory(watching: Open) -> None:
    model = Reader(nn.LSTM)
    fit(watching, model, torch.optim.Adam(model.parameters(), 1e-2), steps=100)


class Tokens(nn.Module):
    """A small transformer over the features."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(4, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True, norm_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.enter(x.view(len(x), 5, 4))).mean(1))


@loop
def transformer(watching: Open) -> None:
    model = Tokens()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    plan = PLANS.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 20))
    fit(watching, model, optimizer, after=lambda _: plan.step(), steps=100)


@loop
def autoencoder(watching: Open) -> None:
    x = draw()[0] @ torch.randn(20, 64) / 4
    model = nn.Sequential(
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 8),
        nn.ReLU(),
        nn.Linear(8, 32),
        nn.ReLU(),
        nn.Linear(32, 64),
    )
    optimizer, loss = torch.optim.Adam(model.parameters(), 3e-3), nn.MSELoss()
    with watching(model, optimizer, loss):
        for _ in range(STEPS):
            batch = x[torch.randint(0, len(x), (64,))]
            optimizer.zero_grad()
            loss(model(batch), batch).backward()
            optimizer.step()


class Pair(nn.Module):
    """Both nets of an adversarial training."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        self.judge = nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))


def _play(
    watching: Open, pick: Callable[[Pair, Any, Any], tuple[nn.Module, Any]], every: int, keep: bool
) -> None:
    pair, loss = Pair(), nn.BCEWithLogitsLoss()
    maker = torch.optim.Adam(pair.make.parameters(), 2e-4, betas=(0.5, 0.999))
    judge = torch.optim.Adam(pair.judge.parameters(), 2e-4, betas=(0.5, 0.999))
    model, optimizers = pick(pair, maker, judge)
    one, zero = torch.ones(64, 1), torch.zeros(64, 1)
    with watching(model, optimizers, loss):
        for step in range(STEPS):
            real = torch.randn(64, 4) * torch.tensor([1.0, 0.5, 2.0, 1.0]) + 1
            judge.zero_grad(set_to_none=not keep)
            loss(pair.judge(real), one).backward()
            made = pair.make(torch.randn(64, 8))
            loss(pair.judge(made.detach()), zero).backward()
            judge.step()
            if step % every == every - 1:
                maker.zero_grad(set_to_none=not keep)
                loss(pair.judge(pair.make(torch.randn(64, 8))), one).backward()
                maker.step()


@loop
def adversarial_both(watching: Open) -> None:
    _play(watching, lambda pair, maker, judge: (pair, [maker, judge]), 1, keep=False)


@loop
def adversarial_in_place(watching: Open) -> None:
    _play(watching, lambda pair, maker, judge: (pair, [maker, judge]), 1, keep=True)


@loop
def adversarial_maker_alone(watching: Open) -> None:
    _play(watching, lambda pair, maker, judge: (pair.make, maker), 1, keep=False)


@loop
def adversarial_judge_alone_of_the_pair(watching: Open) -> None:
    _play(watching, lambda pair, maker, judge: (pair, judge), 1, keep=False)


@loop
def adversarial_five_to_one(watching: Open) -> None:
    _play(watching, lambda pair, maker, judge: (pair, [maker, judge]), 5, keep=False)


@loop
def gradient_penalty(watching: Open) -> None:
    critic = nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.0, 0.9))
    watch = watching(critic, optimizer, None)
    for _ in range(STEPS):
        real, made = torch.randn(64, 4) + 1, torch.randn(64, 4)
        between = torch.lerp(real, made, torch.rand(64, 1)).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        value = critic(made).mean() - critic(real).mean() + 10 * (slope.norm(dim=1) - 1).square().mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        watch.step(value)
    watch.close()


@loop
def sparse_embedding(watching: Open) -> None:
    model = nn.Sequential(nn.EmbeddingBag(500, 16, sparse=True), nn.Linear(16, 5))
    optimizer, loss = torch.optim.SGD(model.parameters(), 0.5), nn.CrossEntropyLoss()
    label = torch.arange(500) % 5
    with watching(model, optimizer, loss):
        for _ in range(STEPS):
            word = torch.randint(0, 500, (64, 1))
            optimizer.zero_grad()
            loss(model(word), label[word[:, 0]]).backward()
            optimizer.step()


@loop
def rate_finder(watching: Open) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    plan = PLANS.ExponentialLR(optimizer, (0.05 / 1e-6) ** (1 / 100))
    fit(watching, model, optimizer, after=lambda _: plan.step(), steps=100)


@loop
def early_convergence(watching: Open) -> None:
    x, y = draw(64)
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    with watching(model, optimizer, loss):
        for _ in range(250):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()


@loop
def hinge_that_ends_at_zero(watching: Open) -> None:
    x = torch.randn(128, 20)
    y = (x[:, :5] + 3 * torch.eye(5)[torch.arange(128) % 5]).argmax(1)
    x = torch.cat([x, 6 * torch.eye(5)[y]], 1)
    model, loss = nn.Linear(25, 5), nn.MultiMarginLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    with watching(model, optimizer, loss):
        for _ in range(250):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()


@loop
def plateau(watching: Open) -> None:
    model, loss = nn.Linear(20, 1), nn.MSELoss()
    x = draw()[0]
    target = x @ torch.randn(20, 1) + torch.randn(len(x), 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    plan = PLANS.ReduceLROnPlateau(optimizer, patience=10)
    with watching(model, optimizer, loss):
        for _ in range(250):
            optimizer.zero_grad()
            value = loss(model(x), target)
            value.backward()
            optimizer.step()
            plan.step(value.item())


@loop
def policy_gradient(watching: Open) -> None:
    policy = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    watch = watching(policy, optimizer, None)
    for _ in range(STEPS):
        state = torch.randn(64, 4)
        chosen = torch.distributions.Categorical(logits=policy(state))
        act = chosen.sample()
        reward = (act == state[:, :3].argmax(1)).float()
        value = -(chosen.log_prob(act) * (reward - reward.mean())).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        watch.step(value)
    watch.close()


class Agent(nn.Module):
    """A trunk with rectifiers, a policy and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.policy, self.value = nn.Linear(64, 3), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.policy(h), self.value(h)


@loop
def actor_and_critic(watching: Open) -> None:
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), 1e-3)
    with watching(agent, optimizer, None) as watch:
        state = torch.randn(16, 4)
        for _ in range(STEPS):
            logits, value = agent(state)
            chosen = torch.distributions.Categorical(logits=logits)
            act = chosen.sample()
            reward = (act == state[:, :3].argmax(1)).float() * 5
            advantage = reward - value[:, 0]
            total = advantage.square().mean() - (chosen.log_prob(act) * advantage.detach()).mean()
            optimizer.zero_grad()
            total.backward()
            _clip(agent, 0.5)
            optimizer.step()
            state = 0.95 * state + 0.05 * torch.randn(16, 4) + 0.05
            watch.step(total)


@loop
def maximised_reward(watching: Open) -> None:
    mean = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(mean.parameters(), 1e-2, maximize=True)
    with watching(mean, optimizer, None) as watch:
        for _ in range(STEPS):
            x = torch.randn(64, 4)
            optimizer.zero_grad()
            reward = -(mean(x) - x.flip(1)).square().mean()
            reward.backward()
            optimizer.step()
            watch.step(reward)


@loop
def labels_that_say_nothing(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with watching(model, optimizer, loss):
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss(model(torch.randn(64, 20)), torch.randint(0, 5, (64,))).backward()
            optimizer.step()


@loop
def trained_on_at_its_floor(watching: Open) -> None:
    x = torch.randn(2048, 20)
    target = x @ torch.randn(20, 1) + 0.5 * torch.randn(2048, 1)
    model, loss = nn.Linear(20, 1), nn.MSELoss()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, target).solution.T)
        model.bias.zero_()
    optimizer = torch.optim.Adam(model.parameters(), 1e-5)
    with watching(model, optimizer, loss):
        for _ in range(250):
            chosen = torch.randint(0, 2048, (64,))
            optimizer.zero_grad()
            loss(model(x[chosen]), target[chosen]).backward()
            optimizer.step()


@loop
def without_an_optimizer(watching: Open) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    with watching(model, None, None) as watch:
        for x, y in batches(100):
            model.zero_grad()
            value = loss(model(x), y)
            value.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.05 * p.grad
            watch.step(value)
