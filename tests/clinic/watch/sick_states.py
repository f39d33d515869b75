"""Loops that run on in silence: weights put back, modes left on, batches gone wrong; and their twins."""

from __future__ import annotations

import copy
from typing import Any

import torch
from tests.clinic.watch.loops import Open, batches, draw, fit, mlp
from tests.clinic.watch.sick_loops import SICK, case
from torch import nn
from torch.nn import functional as F

__all__ = ["SICK", "normed"]


def normed() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64),
        nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 5),
    )  # fmt: skip


@case("OPT010")
def mean_of_the_weights_copied_back(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer, mean = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), copy.deepcopy(model)

    @torch.no_grad()
    def after(_: int) -> None:
        for p, q in zip(model.parameters(), mean.parameters(), strict=True):
            q.lerp_(p, 0.001)
            if sick:
                p.copy_(q)

    fit(watching, model, optimizer, after=after, steps=60)


@case("OPT010")
def checkpoint_loaded_at_each_epoch(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer, start = torch.optim.AdamW(model.parameters(), 1e-3), copy.deepcopy(model.state_dict())

    def after(step: int) -> None:
        if sick and step % 20 == 19:
            model.load_state_dict(start)

    fit(watching, model, optimizer, after=after, steps=100)


@case("NRM003")
def evaluation_never_undone(watching: Open, sick: bool) -> None:
    model = normed()

    def after(step: int) -> None:
        if step == 30:
            model.eval()
            model(torch.randn(8, 20))
            model.train(not sick)

    fit(watching, model, torch.optim.AdamW(model.parameters(), 1e-3), after=after, steps=100)


@case("NRM003")
def evaluation_from_the_start(watching: Open, sick: bool) -> None:
    model = normed().train(not sick)
    fit(watching, model, torch.optim.AdamW(model.parameters(), 1e-3), steps=60)


@case("OPT011")
def labels_shuffled_apart(watching: Open, sick: bool) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    with watching(model, optimizer, loss):
        for step, (x, y) in enumerate(batches(220)):
            optimizer.zero_grad()
            loss(model(x), y[torch.randperm(len(y))] if sick and step >= 90 else y).backward()
            optimizer.step()


@case("OPT011")
def labels_of_the_batch_before(watching: Open, sick: bool) -> None:
    layers = [nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    model: nn.Module = nn.Sequential(*layers, nn.Linear(64, 5))
    optimizer, teacher = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), nn.Linear(20, 5)
    last = torch.zeros(64, dtype=torch.int64)
    with watching(model, optimizer, None):
        for step in range(300):
            x = torch.randn(64, 20)
            y = teacher(x).argmax(1)
            optimizer.zero_grad()
            F.cross_entropy(model(x), last if sick and step >= 100 else y).backward()
            optimizer.step()
            last = y


@case("OPT011")
def last_batch_for_ever(watching: Open, sick: bool) -> None:
    model, (x, y) = mlp(), draw(2048)
    optimizer, chosen = torch.optim.SGD(model.parameters(), 0.05), torch.arange(32)
    with watching(model, optimizer, nn.CrossEntropyLoss()):
        for step in range(400):
            if not sick or step < 64:
                chosen = torch.randperm(2048)[:32]
            optimizer.zero_grad()
            F.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()


@case("OPT007")
def step_within_an_accumulation(watching: Open, sick: bool) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watching(model, optimizer, loss):
        for i, (x, y) in enumerate(batches(60)):
            (loss(model(x), y) / 4).backward()
            if sick or i % 4 == 3:
                optimizer.step()
            if i % 4 == 3:
                optimizer.zero_grad()


@case("LOS002")
def clipped_to_less_than_nothing(watching: Open, sick: bool) -> None:
    model: Any = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    fit(
        watching,
        model,
        optimizer,
        before_step=lambda _: nn.utils.clip_grad_norm_(model.parameters(), -1.0 if sick else 1.0),
        steps=40,
    )
