"""Accelerate: one line around the loop. One bad batch is left out of the training, and named."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unvanish.integrations.accelerate import AccelerateWatch


def main() -> None:
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    x = torch.randn(512, 32)
    x[300] = torch.nan
    loader = DataLoader(TensorDataset(x, x[:, :4].argmax(1)), batch_size=32)
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.Adam(model.parameters(), lr=1e-3), loader
    )

    with AccelerateWatch(accelerator, model, optimizer, on_finding=("log", "guard")) as watch:
        for batch, labels in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(batch), labels)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
    print(watch.watch)
    print(f"weights are finite: {all(bool(p.isfinite().all()) for p in model.parameters())}")


if __name__ == "__main__":
    main()
