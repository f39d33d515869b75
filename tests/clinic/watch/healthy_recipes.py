"""Loops as they should be: optimizers, schedules, what is trained, what follows it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from tests.clinic.watch.loops import LOOPS, PLANS, STEPS, Open, batches, draw, fit, loop, mlp
from torch import Tensor, nn


def schedule(make: Callable[[Any], Any], rate: float = 2e-3) -> Callable[[Open], None]:
    def run(watching: Open) -> None:
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), rate)
        plan = make(optimizer)
        fit(watching, model, optimizer, after=lambda _: plan.step())

    return run


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
def rate_finder(watching: Open) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    plan = PLANS.ExponentialLR(optimizer, (0.05 / 1e-6) ** (1 / 100))
    fit(watching, model, optimizer, after=lambda _: plan.step(), steps=100)


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
