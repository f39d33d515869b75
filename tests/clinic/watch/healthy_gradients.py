"""Loops as they should be: how gradients are cleared, added up, clipped, left out, and in what precision."""

from __future__ import annotations

import math

import torch
from tests.clinic.watch.loops import PLANS, STEPS, Open, batches, clip, fit, loop, mlp
from torch import nn


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
    fit(watching, model, optimizer, before_step=lambda _: clip(model, 1.0))


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
