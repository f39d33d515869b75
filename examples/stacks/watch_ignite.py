"""Ignite: one line. One bad batch is named and left out, and the training goes on."""

import torch
from ignite.engine import create_supervised_trainer
from torch import nn

from unvanish.integrations.ignite import IgniteWatch


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.randn(512, 20)
    y = torch.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    x[100] = torch.nan  # as a broken file would give

    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    ours = IgniteWatch(model, optimizer, on_finding=("log", "guard")).attach(trainer)
    trainer.run(list(zip(x.split(32), y.split(32), strict=True)), max_epochs=3)
    print(ours.watch)
    print("weights are finite:", all(bool(p.isfinite().all()) for p in model.parameters()))


if __name__ == "__main__":
    main()
