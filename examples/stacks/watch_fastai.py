"""fastai: one callback, with fastai's own optimizer. A rate a hundred times too large is named."""

import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from torch import nn

from unvanish.integrations.fastai import FastaiWatch


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 20)
    rows = list(zip(x, torch.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3], strict=True))
    loaders = DataLoaders(DataLoader(rows[64:], bs=32, shuffle=True), DataLoader(rows[:64], bs=32))
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    watch = FastaiWatch(stop=True)
    learn = Learner(loaders, model, loss_func=nn.MSELoss(), cbs=watch)
    with learn.no_bar(), learn.no_logging():
        learn.fit(4, 1.0)
    print(watch.watch)


if __name__ == "__main__":
    main()
