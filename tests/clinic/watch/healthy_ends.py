"""Loops as they should be, that end, rest at a floor, or have nothing to learn."""

from __future__ import annotations

import torch
from tests.clinic.watch.loops import PLANS, STEPS, Open, draw, loop, mlp
from torch import nn


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
