"""Loops that write weights, switch modes and repeat batches on purpose."""

from __future__ import annotations

import copy

import torch
from tests.clinic.watch.loops import Open, draw, fit, loop, mlp
from tests.clinic.watch.sick_states import normed
from torch import nn
from torch.nn import functional as F


@loop
def looks_ahead(watching: Open) -> None:
    model = mlp()
    optimizer, slow = torch.optim.AdamW(model.parameters(), 2e-3), copy.deepcopy(model)

    @torch.no_grad()
    def after(step: int) -> None:
        if step % 5 == 4:
            for p, q in zip(model.parameters(), slow.parameters(), strict=True):
                q.lerp_(p, 0.5)
                p.copy_(q)

    fit(watching, model, optimizer, after=after, steps=100)


@loop
def pruned_by_masks(watching: Open) -> None:
    model = mlp()
    masks = [torch.rand_like(p) < (0.1 if p.ndim > 1 else 2.0) for p in model.parameters()]

    @torch.no_grad()
    def after(_: int) -> None:
        for p, mask in zip(model.parameters(), masks, strict=True):
            p.mul_(mask)

    fit(watching, model, torch.optim.AdamW(model.parameters(), 2e-3), after=after, steps=100)


@loop
def normalisations_frozen_on_the_way(watching: Open) -> None:
    model = normed()

    def after(step: int) -> None:
        for module in model if step == 40 else ():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()

    fit(watching, model, torch.optim.AdamW(model.parameters(), 1e-3), after=after, steps=100)


@loop
def own_answers_as_labels(watching: Open) -> None:
    model, (x, y) = mlp(), draw(1024)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    with watching(model, optimizer, None):
        for step in range(220):
            chosen = torch.randint(0, 1024, (64,))
            labels = y[chosen] if step < 90 else model(x[chosen]).detach().argmax(1)
            optimizer.zero_grad()
            F.cross_entropy(model(x[chosen]), labels).backward()
            optimizer.step()


@loop
def harder_samples_later(watching: Open) -> None:
    model, (x, y) = mlp(classes=10), draw(2048, classes=10)
    optimizer, easy = torch.optim.AdamW(model.parameters(), 2e-3), (y < 3).nonzero()[:, 0]
    with watching(model, optimizer, None):
        for step in range(240):
            kept = easy if step < 100 else torch.arange(2048)
            chosen = kept[torch.randint(0, len(kept), (64,))]
            optimizer.zero_grad()
            F.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
