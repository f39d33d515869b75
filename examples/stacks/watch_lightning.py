"""Lightning: one callback. A tower of sigmoids loses its gradient, so the watch ends the training."""

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unvanish.integrations.lightning import LightningWatch


class Tower(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        hidden = [layer for _ in range(15) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
        self.net = nn.Sequential(*hidden, nn.Linear(32, 4))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 32)
    loader = DataLoader(TensorDataset(x, x[:, :4].argmax(1)), batch_size=64)
    watch = LightningWatch(stop=True)
    trainer = L.Trainer(
        max_epochs=4, callbacks=[watch], accelerator="cpu", logger=False, enable_checkpointing=False
    )
    trainer.fit(Tower(), loader)
    print(watch.watch)


if __name__ == "__main__":
    main()
