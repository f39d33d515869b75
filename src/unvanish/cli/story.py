"""The story of `unvanish demo`: a deep sigmoid CNN stays at chance on handwritten digits; check, cure, train.

Notable: the same code trains the network before and after the cure.
"""

from __future__ import annotations

import time
from typing import Any

from unvanish.cli.errors import CallError

LAYERS, WIDTH, EPOCHS, BATCH, RATE = 30, 16, 16, 64, 2e-3


def run_story() -> None:
    """Train, check, cure, train again; about a minute on two cores."""
    import torch

    from unvanish.cli.examine import examine
    from unvanish.cli.subject import Subject
    from unvanish.cli.treat import treat
    from unvanish.clinic.config import Config
    from unvanish.reports import print_report

    started = time.perf_counter()
    train, test = load_digits()
    torch.manual_seed(0)
    model = build_network()
    loss = torch.nn.CrossEntropyLoss()
    print(
        f"A CNN of {LAYERS} sigmoid layers reads handwritten digits (8 x 8 pixels, {len(train[0])} images).\n"
    )
    print(f"1. Train it for {EPOCHS} epochs")
    print(f"   accuracy on unseen digits: {fit(model, train, test):.1%}; guessing gives 10 %\n")
    print("2. unvanish check\n")
    torch.manual_seed(0)
    subject = Subject("a sigmoid CNN of 30 layers", build_network())
    batch = train[0][:BATCH], train[1][:BATCH]
    print_report(examine(subject, batch, loss, Config()))
    print("\n3. unvanish cure\n")
    cured = treat(subject, batch, loss)
    print_report(cured)
    print(f"\n4. Train the cured network, with the same code, for {EPOCHS} epochs")
    accuracy = fit(cured.model, train, test)
    print(f"   accuracy on unseen digits: {accuracy:.1%}")
    print(
        f"\n{time.perf_counter() - started:.0f} s in total. For your network: unvanish check, unvanish cure."
    )


def build_network() -> Any:
    """Thirty 3 x 3 convolutions, each with a sigmoid, at PyTorch's own initialisation."""
    from torch import nn

    net = nn.Sequential()
    for index in range(LAYERS):
        net.add_module(f"conv{index}", nn.Conv2d(WIDTH if index else 1, WIDTH, 3, padding=1))
        net.add_module(f"sigmoid{index}", nn.Sigmoid())
    net.add_module("pool", nn.AvgPool2d(2))
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(WIDTH * 16, 10))
    return net


def load_digits() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Training and test images (N, 1, 8, 8) of mean 0 and deviation 1, and their classes."""
    import torch

    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise CallError(
            "the digits come with scikit-learn: pip install 'unvanish[demo]', or try unvanish demo ACT002"
        ) from error
    images, classes = load(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8)
    x = (x - x.mean()) / x.std()
    y = torch.tensor(classes)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return (x[:1400], y[:1400]), (x[1400:], y[1400:])


def fit(model: Any, train: tuple[Any, Any], test: tuple[Any, Any]) -> float:
    """Train with Adam; returns the accuracy on the test images."""
    import torch
    from torch.nn import functional

    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    x, y = train
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            chosen = order[start : start + BATCH]
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(x[chosen]), y[chosen]))
            optimizer.step()
    with torch.no_grad():
        return float((model(test[0]).argmax(1) == test[1]).float().mean())
