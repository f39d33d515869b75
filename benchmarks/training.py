"""What our training loop costs: its steps against those of a bare loop of the same network, one of each in
turn.

Run it with `python -m benchmarks.training` (`--only LSTM`, `--rounds 100`). The bare loop is what one writes
by hand: forward, loss, backward, step, zero_grad, over a DataLoader. Ours is `Model.train` with its
defaults: the norm of every gradient, clipping, steps without a finite gradient left out, a running mean of
the weights, a schedule, callbacks, and the watch where the row says so. Both train from equal seeds, a step
of each in turn, so that a machine whose speed drifts favours neither; a step that took more than twice the
median counts as twice the median.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks import record
from benchmarks.overhead import lstm, transformer
from unvanish.lab.models import build
from unvanish.train import Loaders, Model

WARM = 10  # steps that do not count
clock: Callable[[], float] = time.perf_counter
Made = tuple[nn.Module, Tensor, Tensor]


def resnet20() -> Made:
    """ResNet-20 of the zoo on 32 x 32 images, batch 64."""
    return (
        build("resnet20.yaml", classes=10, channels=3),
        torch.randn(64, 3, 32, 32),
        torch.randint(0, 10, (64,)),
    )


NETS: dict[str, Callable[[], Made]] = {
    "ResNet-20, batch 64": resnet20,
    "LSTM 2 x 256, 100 steps, batch 32": lstm,
    "transformer, 6 layers, 8 x 64 tokens": transformer,
}


class Batch(Dataset[tuple[Tensor, ...]]):
    """One batch, over and over; what a loader costs is the same on both sides."""

    def __init__(self, x: Tensor, y: Tensor, steps: int) -> None:
        self.tensors, self.steps = (x, y), steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.tensors


class Bare:
    """The loop one writes by hand, a step at a time."""

    def __init__(self, net: str, steps: int) -> None:
        torch.manual_seed(0)
        self.model, x, y = NETS[net]()
        self.batches = iter(DataLoader(Batch(x, y, steps), batch_size=None))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4)

    def step(self) -> float:
        """Seconds of one step."""
        started = clock()
        x, y = next(self.batches)
        loss = nn.functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()  # or its gradients would hold the memory that our step had just used
        return clock() - started


def pairs(net: str, rounds: int, watch: bool) -> tuple[list[float], list[float], Any]:
    """Seconds of each of our steps and of the bare loop's, made in turn; and the trainer."""
    steps = rounds + WARM
    bare, ours, theirs = Bare(net, steps), [], []
    torch.manual_seed(0)
    module, x, y = NETS[net]()
    model = Model(module)
    mark = [clock(), None]

    def begin(trainer: Any) -> None:
        mark[:] = [clock(), trainer]

    def turn(trainer: Any) -> None:
        ours.append(clock() - mark[0])
        began = time.perf_counter()
        theirs.append(bare.step())
        if trainer.watch is not None:
            trainer.watch.clock.last += time.perf_counter() - began  # the other's time is no time of this run
        mark[0] = clock()

    model.add_callback("on_train_epoch_start", begin)
    model.add_callback("on_train_batch_end", turn)
    data = Loaders(DataLoader(Batch(x, y, steps), batch_size=None), facts={"classes": 10})
    with tempfile.TemporaryDirectory() as folder:
        model.train(data, epochs=1, watch=watch, project=folder, verbose=False, plots=False, save=False,
                    optimizer="adamw", lr0=1e-4)  # fmt: skip
    return ours[WARM:], theirs[WARM:], mark[1]


def slower(ours: list[float], theirs: list[float]) -> float:
    """How much longer our mean step is, as a share."""
    usual = statistics.median(theirs)
    means = [statistics.fmean(min(t, 2 * usual) for t in times) for times in (ours, theirs)]
    return means[0] / means[1] - 1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--only", default="", help="nets whose name has this word")
    parser.add_argument("--cpu", action="store_true", help="count CPU seconds, on a busy machine")
    record.add_option(parser)
    arguments = parser.parse_args()
    if arguments.cpu:
        globals()["clock"] = time.process_time
    console, title = Console(), f"our step against a bare one, {torch.get_num_threads()} threads"
    table, figures = Table(title=title), {}
    for head in ("network", "bare step", "steps/s", "ours", "ours, watched", "looks"):
        table.add_column(head, justify="left" if head == "network" else "right")
    for net in NETS:
        if arguments.only.lower() not in net.lower():
            continue
        plain, bare, _ = pairs(net, arguments.rounds, False)
        seen, beside, trainer = pairs(net, arguments.rounds, True)
        usual = statistics.median(bare)
        figures |= {f"{net}: bare step s": usual, f"{net}: train": slower(plain, bare)}
        figures[f"{net}: train, watched"] = slower(seen, beside)
        cells = [f"{slower(plain, bare):+.1%}", f"{slower(seen, beside):+.1%}", str(trainer.watch.pace.looks)]
        table.add_row(net, f"{1e3 * usual:.1f} ms", f"{1 / usual:.1f}", *cells)
        console.print(f"{net}: {', '.join(cells)}", markup=False)
    console.print(table)
    record.append("training", arguments, figures)


if __name__ == "__main__":
    main()
