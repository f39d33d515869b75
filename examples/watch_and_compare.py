"""Two watched runs side by side: the same network with sigmoid and with ReLU.

Each run is a folder with one SQLite file. `unvanish show RUN --html page.html` makes a page of one.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import unvanish

STEPS, DEPTH = 150, 12


def train(activation: type[nn.Module], run: Path) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [nn.Linear(32, 32), activation()]
        nn.init.kaiming_normal_(layers[-2].weight)
    model = nn.Sequential(*layers, nn.Linear(32, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_function = nn.CrossEntropyLoss()
    x = torch.randn(1024, 32)
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    with unvanish.watch(model, optimizer, loss_function, run=run, every=10, on_finding="silent"):
        for _ in range(STEPS):
            chosen = torch.randint(0, len(x), (64,))
            optimizer.zero_grad()
            loss_function(model(x[chosen]), y[chosen]).backward()
            optimizer.step()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sigmoid, relu = Path(folder, "sigmoid"), Path(folder, "relu")
        train(nn.Sigmoid, sigmoid)
        train(nn.ReLU, relu)
        subprocess.run([sys.executable, "-m", "unvanish", "compare", sigmoid, relu], check=True)


if __name__ == "__main__":
    main()
