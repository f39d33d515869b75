"""What a watch costs under Lightning's Trainer, and what its sinks add: blocks of steps in alternating pairs.

Run it with `python -m benchmarks.attached`. Every variant trains the same network from one seed in a process
of its own, which makes a block of steps when it is told to, so that all of them see the same load; the order
turns. Seconds are of the training's thread (`time.thread_time`); those of the whole process, where a sink's
own thread counts too, stand beside them. A figure is the median of the blocks' ratios to the plain one's;
"plain, again" says what is chance.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import record

WARM, BLOCK = 150, 25  # steps that do not count, steps of a block
VARIANTS = {
    "Lightning": ("plain", "plain, again", "watched"),
    "loop": ("plain", "plain, again", "watched", "jsonl", "tensorboard", "opentelemetry"),
}


def make_batches() -> Iterator[Any]:
    """Batches without end; a line from the parent before each block, its seconds to the parent after it."""
    import torch

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(64, 128, generator=draw)
    y = x[:, :10].argmax(1)
    for _ in range(WARM):
        yield x, y
    while sys.stdin.readline().strip() == "go":
        before = time.thread_time(), time.process_time()
        for _ in range(BLOCK):
            yield x, y
        spent = time.thread_time() - before[0], time.process_time() - before[1]
        print(*(1000 * seconds / BLOCK for seconds in spent), flush=True)


def build(width: int) -> Any:
    """Eight hidden layers."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    hidden = [part for k in range(8) for part in (nn.Linear(width if k else 128, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def train_loop(variant: str, width: int, folder: str) -> None:
    """A loop of torch's, with a watch and perhaps a sink."""
    import torch

    import unvanish

    net = build(width)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    watching: Any = contextlib.nullcontext()
    if not variant.startswith("plain"):
        places = {"jsonl": f"jsonl:{folder}/rows.jsonl", "tensorboard": f"tensorboard:{folder}"}
        to = None if variant == "watched" else places.get(variant, variant)
        watching = unvanish.watch(net, optimizer, to=to, on_finding="silent")
    with watching:
        for x, y in make_batches():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()


def train_lightning(variant: str, width: int, folder: str) -> None:
    """Lightning's Trainer, with or without the callback."""
    import lightning.pytorch as pl
    import torch

    from unvanish.integrations.lightning import LightningWatch

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = build(width)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), 1e-4)

    class Batches(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return make_batches()

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    callbacks = [] if variant.startswith("plain") else [LightningWatch(on_finding="silent")]
    quiet = {f"enable_{name}": False for name in ("checkpointing", "progress_bar", "model_summary")}
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=callbacks, logger=False, default_root_dir=folder, **quiet
    )
    trainer.fit(Net(), torch.utils.data.DataLoader(Batches(), batch_size=None))


def compare(stack: str, width: int, rounds: int) -> dict[str, tuple[float, float, float]]:
    """By variant: ms of the thread a step, and the ratio to plain of the thread and of the process."""
    names = VARIANTS[stack]
    with contextlib.ExitStack() as stack_of:
        folder = stack_of.enter_context(tempfile.TemporaryDirectory())
        call = [sys.executable, "-m", "benchmarks.attached", "--width", str(width), "--folder", folder]
        running = {
            name: stack_of.enter_context(
                subprocess.Popen(
                    [*call, "--child", f"{stack}:{name}"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )
            for name in names
        }  # fmt: skip
        seen: dict[str, list[list[float]]] = {name: [] for name in names}
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                child = running[name]
                assert child.stdin is not None and child.stdout is not None
                child.stdin.write("go\n")
                child.stdin.flush()
                seen[name].append([float(word) for word in child.stdout.readline().split()])
        for child in running.values():
            child.communicate("stop\n")
    plain = seen[names[0]]
    found = {}
    for name, blocks in seen.items():
        ratios = [
            statistics.median(own[k] / base[k] for own, base in zip(blocks, plain, strict=True))
            for k in (0, 1)
        ]
        found[name] = (statistics.median(block[0] for block in blocks), *ratios)
    return found  # type: ignore[return-value]


def main() -> None:
    """Print the table, and append it to the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--stack", choices=VARIANTS, help="only this one")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    record.add_option(parser)
    options = parser.parse_args()
    if options.child:
        warnings.simplefilter("ignore")
        stack, variant = options.child.split(":")
        train = train_lightning if stack == "Lightning" else train_loop
        return train(variant, options.width, options.folder)
    table = Table("stack", "variant", "ms a step", "thread", "process")
    found: dict[str, Any] = {}
    for stack in VARIANTS if options.stack is None else [options.stack]:
        for name, (own, thread, whole) in compare(stack, options.width, options.rounds).items():
            table.add_row(stack, name, f"{own:.2f}", f"{thread - 1:+.1%}", f"{whole - 1:+.1%}")
            found[f"{stack}, {name}"] = thread - 1
    Console().print(table)
    record.append("attached", options, found)
    return None


if __name__ == "__main__":
    main()
