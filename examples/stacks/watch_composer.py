"""Composer: one callback, with microbatches. A tower of sigmoids is named, and the training ended."""

import torch
from composer import ComposerModel, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unvanish.integrations.composer import ComposerWatch


class Tower(ComposerModel):
    def __init__(self) -> None:
        super().__init__()
        hidden = [layer for _ in range(12) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
        self.net = nn.Sequential(*hidden, nn.Linear(32, 4))

    def forward(self, batch):
        return self.net(batch[0])

    def loss(self, outputs, batch):
        return nn.functional.cross_entropy(outputs, batch[1])


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 32)
    watch = ComposerWatch(stop=True)
    trainer = Trainer(
        model=Tower(),
        train_dataloader=DataLoader(TensorDataset(x, x[:, :4].argmax(1)), batch_size=64),
        max_duration="4ep",
        callbacks=watch,
        device="cpu",
        device_train_microbatch_size=16,
        progress_bar=False,
    )
    trainer.fit()
    trainer.close()
    print(watch.watch)


if __name__ == "__main__":
    main()
