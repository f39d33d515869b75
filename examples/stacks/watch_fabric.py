"""Fabric: `unvanish.watch` takes what `fabric.setup` returns. The learning rate is 100 times too large."""

import torch
from lightning.fabric import Fabric
from torch import nn

import unvanish


def main() -> None:
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", precision="bf16-mixed")
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    model, optimizer = fabric.setup(model, torch.optim.Adam(model.parameters(), lr=1.0))
    x = torch.randn(512, 32)
    y = x[:, :4].argmax(1)

    with unvanish.watch(model, optimizer, every=1) as watch:
        for step in range(40):
            chosen = torch.arange(64) + 64 * (step % 8)
            optimizer.zero_grad()
            fabric.backward(nn.functional.cross_entropy(model(x[chosen]), y[chosen]))
            optimizer.step()
    print(watch)


if __name__ == "__main__":
    main()
