"""One classifier, trained in the ways of the trade: optimizers, schedules, averages, precision, losses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.trainings.basis import (
    PLANS,
    TRAININGS,
    Learned,
    Open,
    Training,
    fit,
    flat_mlp,
    pick,
    pick_digits,
    read_digits,
    score,
    training,
    warm_up,
)

Make = Callable[[Any], Any]  # an optimizer of parameters, a schedule of an optimizer


def build() -> nn.Sequential:
    """The classifier."""
    return flat_mlp(64, 64, 64, 10)


def recipe(
    make: Make, plan: Make = lambda optimizer: None, steps: int = 600, size: int = 64, **options: Any
) -> Training:
    """An ordinary training with this optimizer and schedule."""

    def run(watching: Open) -> Learned:
        net = build()
        optimizer = make(net.parameters())
        fit(watching, net, optimizer, pick_digits(2 * steps, size), plan=plan(optimizer), **options)
        return score(net)

    return run


O = torch.optim  # noqa: E741
TRAININGS.update({
    "sgd": recipe(lambda p: O.SGD(p, 0.1), steps=900),
    "sgd_warm_restarts": recipe(
        lambda p: O.SGD(p, 0.05, momentum=0.9), lambda o: PLANS.CosineAnnealingWarmRestarts(o, 150), 600
    ),
    "adam_one_cycle": recipe(lambda p: O.Adam(p, 1e-3), lambda o: PLANS.OneCycleLR(o, 1e-2, 1000), 500),
    "adamw_warm_up_cosine": recipe(lambda p: O.AdamW(p, 3e-3), lambda o: warm_up(o, 100, 1200)),
    "adamw_strong_decay": recipe(lambda p: O.AdamW(p, 2e-3, weight_decay=0.3)),
    "adam_linear_to_zero": recipe(
        lambda p: O.Adam(p, 3e-3), lambda o: PLANS.LambdaLR(o, lambda s: max(0.0, 1 - s / 1000)), 500
    ),
    "adam_small_rate": recipe(lambda p: O.Adam(p, 2e-4), steps=1500),
    "adagrad": recipe(lambda p: O.Adagrad(p, 0.03)),
    "adadelta": recipe(lambda p: O.Adadelta(p, 1.0)),
    "nadam": recipe(lambda p: O.NAdam(p, 2e-3)),
    "radam": recipe(lambda p: O.RAdam(p, 2e-3)),
    "adamax": recipe(lambda p: O.Adamax(p, 3e-3)),
    "rprop": recipe(lambda p: O.Rprop(p, 1e-3), steps=150, size=1000),
    "asgd": recipe(lambda p: O.ASGD(p, 0.1), steps=900),
    "adafactor": recipe(lambda p: O.Adafactor(p, 0.02), steps=1000),
    "clipped_by_norm": recipe(lambda p: O.AdamW(p, 2e-3), clip=1.0),
    "cyclic": recipe(
        lambda p: O.SGD(p, 0.01, momentum=0.9), lambda o: PLANS.CyclicLR(o, 0.005, 0.1, 60), 600
    ),
})  # fmt: skip


@training
def sign_of_momentum(watching: Open) -> Learned:
    """Lion, Chen et al. 2023."""

    class Lion(torch.optim.Optimizer):
        def __init__(self, p: Any, lr: float) -> None:
            super().__init__(p, {"lr": lr})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    m = self.state[p].setdefault("m", torch.zeros_like(p))
                    p.mul_(1 - group["lr"] * 0.01).sub_(group["lr"] * m.lerp(p.grad, 0.1).sign())
                    m.lerp_(p.grad, 0.01)

    return recipe(lambda p: Lion(p, 3e-4))(watching)


@training
def second_order(watching: Open) -> Learned:
    net = flat_mlp(64, 32, 10, act=nn.Tanh)
    x, y, _, _ = read_digits()
    optimizer = O.LBFGS(net.parameters(), max_iter=5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y) + 1e-3 * sum(p.square().sum() for p in net.parameters())
        loss.backward()
        return loss

    with watching(net, optimizer, None):
        for _ in range(60):
            optimizer.step(closure)
    return score(net)


@training
def stochastic_weight_average(watching: Open) -> Learned:
    net = build()
    mean = O.swa_utils.AveragedModel(net)
    optimizer = O.SGD(net.parameters(), 0.1, momentum=0.9)
    plan = O.swa_utils.SWALR(optimizer, 0.03, anneal_epochs=50)

    def follow(step: int) -> None:
        if step > 300:
            mean.update_parameters(net)
            plan.step()

    fit(watching, net, optimizer, pick_digits(960), after=follow)
    return score(mean)


@training
def running_mean(watching: Open) -> Learned:
    net = build()
    mean = O.swa_utils.AveragedModel(net, multi_avg_fn=O.swa_utils.get_ema_multi_avg_fn(0.99))
    fit(
        watching, net, O.AdamW(net.parameters(), 2e-3), pick_digits(960),
        after=lambda _: mean.update_parameters(net),
    )  # fmt: skip
    return score(mean)


@training
def sharpness_aware(watching: Open) -> Learned:
    net = build()
    optimizer = O.SGD(net.parameters(), 0.1, momentum=0.9)
    with watching(net, optimizer, None):
        for x, y in pick_digits(640):
            F.cross_entropy(net(x), y).backward()
            with torch.no_grad():
                grads = [p.grad for p in net.parameters()]
                size = sum(g.square().sum() for g in grads if g is not None) ** 0.5
                moved = [0.05 * g / (size + 1e-12) for g in grads if g is not None]
                torch._foreach_add_(list(net.parameters()), moved)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            with torch.no_grad():
                torch._foreach_sub_(list(net.parameters()), moved)
            optimizer.step()
            optimizer.zero_grad()
    return score(net)


@training
def accumulation(watching: Open) -> Learned:
    net = build()
    optimizer = O.AdamW(net.parameters(), 2e-3)
    with watching(net, optimizer, None):
        for x, y in pick_digits(560):
            for a, b in zip(x.chunk(4), y.chunk(4), strict=True):
                (F.cross_entropy(net(a), b) / 4).backward()
            optimizer.step()
            optimizer.zero_grad()
    return score(net)


@training
def bfloat16_autocast(watching: Open) -> Learned:
    net = build()

    def measure(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(net(x), y)

    fit(watching, net, O.AdamW(net.parameters(), 2e-3), pick_digits(800), measure)
    return score(net)


@training
def loss_scaled_float16(watching: Open) -> Learned:
    net = build()
    optimizer, scaler = O.AdamW(net.parameters(), 2e-3), torch.amp.GradScaler("cpu", init_scale=2.0**14)
    with watching(net, optimizer, None, scaler=scaler):
        for x, y in pick_digits(480):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = F.cross_entropy(net(x).float(), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            scaler.step(optimizer)
            scaler.update()
    return score(net)


@training
def smoothed_labels(watching: Open) -> Learned:
    net = build()
    fit(
        watching, net, O.Adam(net.parameters(), 1e-3), pick_digits(960),
        lambda x, y: F.cross_entropy(net(x), y, label_smoothing=0.1),
    )  # fmt: skip
    return score(net)


@training
def mixed_samples(watching: Open) -> Learned:
    net = build()

    def measure(x: Tensor, y: Tensor) -> Tensor:
        share, order = float(torch.distributions.Beta(0.4, 0.4).sample()), torch.randperm(len(x))
        out = net(share * x + (1 - share) * x[order])
        return share * F.cross_entropy(out, y) + (1 - share) * F.cross_entropy(out, y[order])

    fit(watching, net, O.Adam(net.parameters(), 2e-3), pick_digits(960), measure)
    return score(net)


@training
def focal_loss(watching: Open) -> Learned:
    net = build()

    def measure(x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(net(x), y, reduction="none")
        return ((1 - (-loss).exp()) ** 2 * loss).mean()

    fit(watching, net, O.Adam(net.parameters(), 2e-3), pick_digits(960), measure)
    return score(net)


@training
def noisy_labels(watching: Open) -> Learned:
    net = build()
    x, y, _, _ = read_digits()
    wrong = torch.where(torch.rand(len(y)) < 0.3, torch.randint(0, 10, (len(y),)), y)
    fit(watching, net, O.Adam(net.parameters(), 1e-3, weight_decay=1e-4), pick(x, wrong, steps=600))
    return score(net, 0.7)


@training
def rare_class_with_weights(watching: Open) -> Learned:
    net = flat_mlp(64, 64, 2)
    x, y, _, _ = read_digits()
    rare, weight = (y == 8).long(), torch.tensor([1.0, 9.0])
    losses = fit(
        watching, net, O.Adam(net.parameters(), 1e-3), pick(x, rare, steps=1000),
        lambda a, b: F.cross_entropy(net(a), b, weight=weight),
    )  # fmt: skip
    return Learned("loss", sum(losses[-50:]) / 50, 0.15, False)


@training
def several_labels(watching: Open) -> Learned:
    net = flat_mlp(64, 64, 4)
    x, y, _, _ = read_digits()
    bits = ((y[:, None] >> torch.arange(4)) & 1).float()
    losses = fit(
        watching, net, O.Adam(net.parameters(), 1e-3), pick(x, bits, steps=700),
        lambda a, b: F.binary_cross_entropy_with_logits(net(a), b),
    )  # fmt: skip
    return Learned("loss", sum(losses[-50:]) / 50, 0.3, False)


@training
def distillation(watching: Open) -> Learned:
    teacher, net = train_before(10), flat_mlp(64, 24, 10)

    def measure(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            aim = (teacher(x) / 3).softmax(1)
        out = net(x)
        return 9 * F.kl_div((out / 3).log_softmax(1), aim, reduction="batchmean") + F.cross_entropy(out, y)

    fit(watching, net, O.Adam(net.parameters(), 2e-3), pick_digits(960), measure)
    return score(net, 0.8)


def train_before(classes: int = 5) -> nn.Sequential:
    """The classifier, trained on some of the digits' classes."""
    net = build()
    x, y, _, _ = read_digits()
    optimizer = O.Adam(net.parameters(), 2e-3)
    for a, b in pick(x[y < classes], y[y < classes], steps=200):
        optimizer.zero_grad()
        F.cross_entropy(net(a), b).backward()
        optimizer.step()
    return net


@training
def frozen_backbone(watching: Open) -> Learned:
    net = train_before()
    net[:-1].requires_grad_(False)
    net[-1].reset_parameters()  # type: ignore[operator]
    fit(watching, net, O.AdamW(net[-1].parameters(), 1e-2), pick_digits(800))
    return score(net, 0.7)


@training
def gradual_unfreezing(watching: Open) -> Learned:
    net = train_before()
    net[:-1].requires_grad_(False)
    optimizer = O.AdamW(net.parameters(), 2e-3)

    def thaw(step: int) -> None:
        if step in (150, 300):
            net[3 if step == 150 else 1].requires_grad_(True)

    fit(watching, net, optimizer, pick_digits(800), after=thaw)
    return score(net)


@training
def low_rank_adapters(watching: Open) -> Learned:
    class LoRA(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.layer = layer.requires_grad_(False)
            self.a = nn.Parameter(torch.randn(4, layer.in_features) / layer.in_features**0.5)
            self.b = nn.Parameter(torch.zeros(layer.out_features, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + 2 * x @ self.a.T @ self.b.T

    before = train_before()
    net = nn.Sequential(*(LoRA(m) if isinstance(m, nn.Linear) else m for m in copy.deepcopy(before)))
    fit(watching, net, O.AdamW([p for p in net.parameters() if p.requires_grad], 5e-3), pick_digits(960))
    return score(net, 0.8)
