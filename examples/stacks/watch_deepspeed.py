"""DeepSpeed: one line, under ZeRO 2 in one process. A tower of sigmoids is named."""

import os

for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1")):
    os.environ.setdefault(name, value)
os.environ.setdefault("MASTER_PORT", "29621")

import deepspeed
import torch
from torch import nn

from unvanish.integrations.deepspeed import DeepSpeedWatch


def main() -> None:
    torch.manual_seed(0)
    hidden = [layer for _ in range(12) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
    model = nn.Sequential(*hidden, nn.Linear(32, 4))
    settings = {
        "train_batch_size": 64,
        "zero_optimization": {"stage": 2},
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)

    with DeepSpeedWatch(engine) as ours:
        for _ in range(20):
            x = torch.randn(64, 32)
            engine.backward(nn.functional.cross_entropy(engine(x), x[:, :4].argmax(1)))
            engine.step()
    print(ours.watch)


if __name__ == "__main__":
    main()
