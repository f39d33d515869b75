"""A network that cannot learn: diagnosed, cured on a copy, and both trained alike.

Needs scikit-learn for its handwritten digits (`pip install 'unvanish[demo]'`).
"""

import copy

import torch
from sklearn.datasets import load_digits
from torch import nn

import unvanish

DEPTH, STEPS = 20, 200


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [part for _ in range(DEPTH) for part in (nn.Linear(64, 64), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Train on all but the last 400 digits; the share of those that is read right."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(STEPS):
        chosen = torch.randint(0, len(x) - 400, (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    return (model(x[-400:]).argmax(1) == y[-400:]).float().mean().item()


def main() -> None:
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images).float() / 8 - 0.6, torch.tensor(classes)
    model, batch = network(), (x[:64], y[:64])

    cured = unvanish.cure(model, batch, nn.CrossEntropyLoss())
    print(cured)
    print(f"\naccuracy on unseen digits before: {accuracy(model, x, y):.1%}")
    print(f"accuracy on unseen digits after:  {accuracy(cured.model, x, y):.1%}")


if __name__ == "__main__":
    main()
