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


def train_fastai(kind: str, watched: bool) -> None:
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader as Loader
    from fastai.distributed import DistributedDL, DistributedTrainer
    from fastai.learner import Learner
    from fastai.optimizer import SGD

    from unvanish.integrations.fastai import FastaiWatch

    class Steps(Callback):
        run_valid, done = False, 0

        def after_batch(self) -> None:
            self.done += 1

    net, steps = build(kind), Steps()
    options: dict[str, Any] = {"every": 1, "on_finding": "silent", "stop": kind == SICK}
    watch = FastaiWatch(**options) if watched else None
    DistributedDL._broadcast = lambda self, order, rank: order  # fastai's own wants CUDA
    loaders = DataLoaders(Loader(list(zip(X, Y, strict=True)), bs=8), Loader([], bs=8))
    learn = Learner(loaders, net, loss_func=nn.functional.cross_entropy, opt_func=SGD, cbs=[steps])
    learn._do_epoch_validate = lambda *a, **k: None
    with learn.no_bar(), learn.no_logging():
        learn.add_cb(DistributedTrainer(cpu=True, sync_bn=False))
        learn.fit(6, 0.05, cbs=watch and [watch])
    tell(kind, steps.done, net, watch and watch.watch)


def train_composer(kind: str, watched: bool) -> None:
    from composer import ComposerModel, Trainer
    from composer.utils import dist

    from unvanish.integrations.composer import ComposerWatch

    class Net(ComposerModel):
        def __init__(self) -> None:
            super().__init__()
            self.net = build(kind)

        def forward(self, batch: Any) -> Any:
            return self.net(batch[0])

        def loss(self, outputs: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
            return nn.functional.cross_entropy(outputs, batch[1])

    dist.initialize_dist("cpu")
    model, data = Net(), TensorDataset(X, Y)
    watch = ComposerWatch(every=1, on_finding="silent", stop=kind == SICK) if watched else None
    trainer = Trainer(
        model=model,
        train_dataloader=DataLoader(data, 8, sampler=dist.get_sampler(data)),
        optimizers=torch.optim.SGD(model.parameters(), lr=0.05),
        max_duration="6ep",
        callbacks=watch and [watch],
        progress_bar=False,
        device="cpu",
    )
    trainer.fit()
    steps = int(trainer.state.timestamp.batch)
    tell(kind, steps, model.net, watch and watch.watch)


def train_keras(kind: str, watched: bool) -> None:
    """As Keras' own guide to several processes has it: its model in torch's DDP, in a loop of torch's."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    import unvanish
    from unvanish.clinic.watch.errors import WatchError

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    keras.utils.set_random_seed(0)
    name, depth = ("sigmoid", 12) if kind == SICK else ("relu", 3)
    hidden = [keras.layers.Dense(32, activation=name) for _ in range(depth)]
    net = keras.Sequential([keras.Input((16,)), *hidden, keras.layers.Dense(4)])
    model = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    on_finding = "raise" if kind == SICK else "silent"
    watch = unvanish.watch(model, optimizer, every=1, on_finding=on_finding) if watched else None
    sampler = torch.utils.data.DistributedSampler(data := TensorDataset(X, Y), shuffle=False)
    steps = 0
    try:
        for _ in range(6 if kind != SICK else 40):
            for x, y in DataLoader(data, batch_size=8, sampler=sampler):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                steps += 1
    except WatchError:
        pass
    tell(kind, steps, net, watch)


def train_uneven(kind: str, watched: bool) -> None:
    """Ranks with 40 and 29 batches, joined by torch: one ends early, and is waited for by none of ours."""
    from unvanish.integrations.attachment import Attachment

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    net = build(kind)
    model = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    attachment = Attachment(every=1, on_finding="silent", stop=True)
    if watched:
        attachment.open(model, optimizer)
    rank, steps = int(os.environ["RANK"]), 0
    # the sick one: rank 0 has few batches and finds nothing in them
    count = {"healthy": (40, 29), SICK: (3, 400)}[kind][rank]
    with model.join():
        for k in range(count):
            optimizer.zero_grad()
            picked = slice(8 * (k % 16), 8 * (k % 16) + 8)
            nn.functional.cross_entropy(model(X[picked]), Y[picked]).backward()
            optimizer.step()
            steps += 1
            if attachment.ends():
                break
    attachment.close()
    tell(kind, steps, net, attachment.watch)


def main() -> None:
    warnings.simplefilter("ignore")
    train = globals()[f"train_{sys.argv[1]}"]
    for kind in ("healthy", SICK):
        train(kind, sys.argv[2] == "True")


if __name__ == "__main__":
    main()
