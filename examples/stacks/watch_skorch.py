"""skorch: one callback. A learning rate a hundred times too large is named, and the training ended."""

import numpy as np
import torch
from skorch import NeuralNetRegressor
from torch import nn

from unvanish.integrations.skorch import SkorchWatch


def main() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((512, 20)).astype("float32")
    y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    watch = SkorchWatch(stop=True)
    net = NeuralNetRegressor(
        nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)),
        optimizer=torch.optim.Adam,
        lr=1.0,
        batch_size=32,
        max_epochs=4,
        callbacks=[watch],
        verbose=0,
    )
    net.fit(x, y)
    print(watch.watch)


if __name__ == "__main__":
    main()
