"""Two processes train by a library's own means: `torchrun ... ranks.py LIBRARY WATCHED FOLDER`.

Each prints a line a training: its kind, rank, steps, a sum over all weights, and what was found.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

X = torch.randn(128, 16, generator=torch.Generator().manual_seed(0))
Y = X[:, :4].argmax(1)
SICK = "sick"


def build(kind: str) -> nn.Sequential:
    torch.manual_seed(0)
    act, depth = (nn.Sigmoid, 12) if kind == SICK else (nn.ReLU, 3)
    hidden = [layer for k in range(depth) for layer in (nn.Linear(32 if k else 16, 32), act())]
    return nn.Sequential(*hidden, nn.Linear(32, 4))


def tell(kind: str, steps: int, net: nn.Module, watch: Any) -> None:
    total = sum(p.double().abs().sum().item() for p in net.parameters())
    found = "-" if watch is None else ",".join(f.code for f in watch.findings)
    print(f"RESULT {kind} {os.environ['RANK']} {steps} {total!r} {found or 'nothing'};", flush=True)


def train_lightning(kind: str, watched: bool) -> None:
    import lightning.pytorch as pl
    from lightning.pytorch.strategies import DDPStrategy

    from unvanish.integrations.lightning import LightningWatch

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = build(kind)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    model = Net()
    watch = LightningWatch(every=1, on_finding="silent", stop=kind == SICK) if watched else None
    quiet = {f"enable_{name}": False for name in ("checkpointing", "progress_bar", "model_summary")}
    trainer = pl.Trainer(
        max_epochs=6, callbacks=watch and [watch], accelerator="cpu", devices=2, logger=False,
        strategy=DDPStrategy(process_group_backend="gloo"), **quiet,
    )  # fmt: skip
    trainer.fit(model, DataLoader(TensorDataset(X, Y), batch_size=16))
    tell(kind, trainer.global_step, model, watch and watch.watch)


def train_accelerate(kind: str, watched: bool) -> None:
    from accelerate import Accelerator

    from unvanish.integrations.accelerate import AccelerateWatch

    accelerator, net = Accelerator(cpu=True), build(kind)
    loader = DataLoader(TensorDataset(X, Y), batch_size=16)
    model, optimizer, loader = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.05), loader)
    options: dict[str, Any] = {"every": 1, "on_finding": "silent", "stop": kind == SICK}
    watch = AccelerateWatch(accelerator, model, optimizer, **options) if watched else None
    steps = 0
    for _ in range(6):
        for x, y in loader:
            accelerator.backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
            if accelerator.check_trigger():
                break
        else:
            continue
        break
    if watch is not None:
        watch.close()
    tell(kind, steps, net, watch and watch.watch)


def train_transformers(kind: str, watched: bool) -> None:
    from transformers import Trainer, TrainingArguments

    from unvanish.integrations.transformers import TransformersWatch

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build(kind)

        def forward(self, x: Any, labels: Any) -> Any:
            return {"loss": nn.functional.cross_entropy(self.net(x), labels)}

    watch = TransformersWatch(every=1, on_finding="silent", stop=kind == SICK) if watched else None
    arguments = TrainingArguments(
        sys.argv[3], max_steps=24, per_device_train_batch_size=16, report_to=[], save_strategy="no",
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    trainer = Trainer(Net(), arguments, train_dataset=rows, callbacks=watch and [watch])
    trainer.train()
    tell(kind, trainer.state.global_step, trainer.model, watch and watch.watch)


def train_ignite(kind: str, watched: bool) -> None:
    from ignite.engine import Engine

    from unvanish.integrations.ignite import IgniteWatch

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    net = build(kind)
    model = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step(engine: Any, batch: Any) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()

    trainer, data = Engine(step), TensorDataset(X, Y)
    options: dict[str, Any] = {"every": 1, "on_finding": "silent", "stop": kind == SICK}
    # what one rank cannot watch ends with the others, too
    unseen = kind == SICK and os.environ["RANK"] == "1"
    watch = IgniteWatch(nn.Identity() if unseen else model, optimizer, **options) if watched else None
    if watch is not None:
        watch.attach(trainer)
    sampler = torch.utils.data.DistributedSampler(data, shuffle=False)
    trainer.run(DataLoader(data, batch_size=8, sampler=sampler), max_epochs=6)
    tell(kind, trainer.state.iteration, net, watch and watch.watch)


def main() -> None:
    warnings.simplefilter("ignore")
    train = globals()[f"train_{sys.argv[1]}"]
    for kind in ("healthy", SICK):
        train(kind, sys.argv[2] == "True")


if __name__ == "__main__":
    main()
