"""Trainings of several ranks, each run with and without a watch by `tests.fuzz.ranks`.

A case takes its `Seat` (rank, ranks, folder, whether it is watched) and returns what it saw; everything in it
happens alike in both runs, apart from the watch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import unvanish

Case = Callable[["Seat"], dict[str, Any]]
CASES: dict[str, tuple[int, Case]] = {}  # number of ranks, training
NAN = 9  # the step at which a batch is not finite


@dataclass
class Seat:
    """One rank of a case."""

    rank: int
    ranks: int
    folder: Path
    watched: bool
    watch: Any = None
    heard: list[str] = field(default_factory=list)

    def open(self, model: nn.Module, optimizer: Any, **options: Any) -> Any:
        """Watch, if this run is the watched one."""
        if self.watched:
            given = {"every": 2, "run": self.folder, **options}
            asked = given.pop("on_finding", [])
            ways = [*(asked if isinstance(asked, list) else [asked]), self._hear]
            self.watch = unvanish.watch(model, optimizer, on_finding=ways, **given)
        return self.watch

    def _hear(self, finding: Any) -> None:
        self.heard.append(f"{finding.code}: {finding.cause}")

    def step(self, loss: Any) -> None:
        """Note a loss."""
        if self.watch is not None:
            self.watch.step(loss)

    def close(self) -> dict[str, Any]:
        """End the watch; what it found and noted."""
        if self.watch is None:
            return {}
        self.watch.close()
        return {
            "failure": self.watch.failure,
            "notes": self.watch.notes,
            "heard": self.heard,
            "found": [f"{f.code}: {f.cause}" for f in self.watch.findings],
        }


def case(name: str, ranks: int = 2) -> Callable[[Case], Case]:
    """Register a case."""

    def add(function: Case) -> Case:
        CASES[name] = ranks, function
        return function

    return add


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """The same small network on every rank."""
    torch.manual_seed(0)
    layers = nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
    return nn.Sequential(*layers).to(dtype)


def batches(rank: int, count: int, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of this rank."""
    draw = torch.Generator().manual_seed(rank + 1)
    for _ in range(count):
        x = torch.randn(8, 16, generator=draw)
        yield x.to(dtype), torch.randint(0, 4, (8,), generator=draw)


@dataclass(frozen=True)
class Plan:
    """A replicated training, and what happens in it."""

    steps: tuple[int, int] = (20, 20)  # of the even and the odd ranks
    joined: bool = False
    watch: dict[str, Any] = field(default_factory=dict)
    who: Callable[[int], bool] = lambda rank: True  # watches
    before: Callable[[Seat, int, nn.Module, Tensor], Tensor] = lambda seat, step, model, x: x
    skips: Callable[[int, int], bool] = lambda rank, step: False  # the optimizer's step
    stops: Callable[[int, int], bool] = lambda rank, step: False  # the training
    after: Callable[[Seat, int], None] = lambda seat, step: None
    accumulates: bool = False
    clips: bool = False
    unused: bool = False


def replicate(seat: Seat, plan: Plan) -> dict[str, Any]:
    """Train under DistributedDataParallel as planned."""
    model = DistributedDataParallel(net(), find_unused_parameters=plan.unused)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    if plan.who(seat.rank):
        seat.open(model, optimizer, **plan.watch)
    losses: list[float] = []
    with model.join() if plan.joined else contextlib.nullcontext():
        for step, (x, y) in enumerate(batches(seat.rank, plan.steps[seat.rank % 2])):
            x = plan.before(seat, step, model, x)
            optimizer.zero_grad()
            open_step = plan.accumulates and step % 2 == 0
            with model.no_sync() if open_step else contextlib.nullcontext():
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
            losses.append(loss.item())
            if open_step or plan.skips(seat.rank, step):
                continue
            if plan.clips:
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            seat.step(loss)
            plan.after(seat, step)
            if plan.stops(seat.rank, step):
                break
    return {"losses": losses, **seat.close()}


def break_batch(seat: Seat, step: int, model: nn.Module, x: Tensor) -> Tensor:
    """The second rank's batch is not finite, once."""
    return x * float("nan") if step == NAN and seat.rank == 1 else x


def fail(seat: Seat, step: int, model: nn.Module, x: Tensor) -> Tensor:
    """The second rank dies of an exception."""
    if step == 7 and seat.rank == 1:
        raise RuntimeError("rank 1 died")
    return x


def kill(seat: Seat, step: int, model: nn.Module, x: Tensor) -> Tensor:
    """The second rank is killed."""
    if step == 7 and seat.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def catch(seat: Seat, step: int, model: nn.Module, x: Tensor) -> Tensor:
    """A forward fails on the second rank, and is caught."""
    if step == 6 and seat.rank == 1:
        with contextlib.suppress(RuntimeError):
            model(torch.randn(8, 17))
    return x


def evaluate(seat: Seat, step: int, model: Any, x: Tensor) -> Tensor:
    """The first rank makes forwards of its own."""
    if step % 3 == 0 and seat.rank == 0:
        with torch.no_grad():
            model.module(x)
    return x


def close_early(seat: Seat, step: int) -> None:
    """The second rank ends its watch."""
    if step == 10 and seat.rank == 1:
        seat.close()


def silence(seat: Seat, step: int, model: nn.Module, x: Tensor) -> Tensor:
    """The second rank's samples lie on one side, so that some of its units are silent; and slowly."""
    time.sleep(0.02)
    return x + 2 if seat.rank == 1 else x


UNEVEN = (20, 13)
SILENT = {"on_finding": "raise", "every": 1, "select": ["ACT003"], "settings": {"ACT003": {"limit": 0.02}}}
PLANS = {
    "plain": Plan(),
    "folderless": Plan(watch={"run": None}),
    "uneven": Plan(steps=UNEVEN),
    "uneven_join": Plan(steps=UNEVEN, joined=True),
    "uneven_join_every1": Plan(steps=UNEVEN, joined=True, watch={"every": 1}),
    "skip_one": Plan(skips=lambda rank, step: rank == 1 and step == 8),
    "exc_caught": Plan(before=catch),
    "close_uneven": Plan(after=close_early),
    "only0": Plan(who=lambda rank: rank == 0),
    "only1": Plan(who=lambda rank: rank == 1),
    "raise": Plan(before=break_batch, watch={"on_finding": "raise"}),
    "raise_one": Plan((600, 600), before=silence, watch=SILENT),
    "guard": Plan(before=break_batch, watch={"on_finding": "guard"}),
    "snapshot": Plan(before=break_batch, watch={"on_finding": ["silent", "snapshot"]}),
    "rankfail": Plan(before=fail),
    "rankkill": Plan(before=kill),
    "evalforward": Plan(before=evaluate),
    "nan": Plan(before=break_batch),
    "nan_folderless": Plan(before=break_batch, watch={"run": None}),
    "accum": Plan(accumulates=True),
    "clip": Plan(clips=True),
    "early": Plan(stops=lambda rank, step: rank == 0 and step == 11),
    "unused": Plan(unused=True),
    "rare": Plan(watch={"every": 7}),
    "budget": Plan((60, 60), watch={"every": None}),
}
for _name, _plan in PLANS.items():
    case(_name)(lambda seat, plan=_plan: replicate(seat, plan))
case("three", 3)(lambda seat: replicate(seat, Plan()))
case("three_join", 3)(lambda seat: replicate(seat, PLANS["uneven_join"]))
case("three_nan", 3)(lambda seat: replicate(seat, PLANS["nan"]))
case("four", 4)(lambda seat: replicate(seat, Plan()))
case("four_skip", 4)(lambda seat: replicate(seat, PLANS["skip_one"]))
case("four_only", 4)(lambda seat: replicate(seat, Plan(who=lambda rank: rank in (1, 2))))


@case("unshared")
def train_apart(seat: Seat) -> dict[str, Any]:
    """Each rank has a folder of its own, as on machines that share none."""
    own = seat.folder.with_name(f"{seat.folder.name}-{seat.rank}")

    def wait(other: Seat, step: int) -> None:
        time.sleep(0.06)  # so that the threads have talked before the first rank ends

    return replicate(seat, Plan(watch={"run": own}, after=wait))


@case("alone_together")
def train_alone(seat: Seat) -> dict[str, Any]:
    """Ranks that share nothing but their group: what one finds is told on the other, and raises on both."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    seat.open(model, optimizer, run=None, on_finding="raise")
    losses = []
    for step, (x, y) in enumerate(batches(seat.rank, 300)):
        time.sleep(0.01)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(break_batch(seat, step, model, x)), y)
        loss.backward()
        optimizer.step()
        seat.step(loss)
        losses.append(loss.item())
    return {"losses": losses, **seat.close()}


@case("restart")
def train_again(seat: Seat) -> dict[str, Any]:
    """The process group is left and made anew; the run goes on in the same folder, under a new watch."""
    first = replicate(seat, PLANS["uneven_join"])
    seat.watch = None
    dist.destroy_process_group()
    store = dist.FileStore(str(seat.folder.with_name("again")), seat.ranks)
    dist.init_process_group("gloo", store=store, rank=seat.rank, world_size=seat.ranks)
    second = replicate(seat, Plan())
    return {**second, "losses": [*first["losses"], *second["losses"]]}


def train_stage(seat: Seat, same: bool) -> dict[str, Any]:
    """A pipeline of two stages with other modules, by hand; `same`: modules of the same names and shapes."""
    torch.manual_seed(seat.rank)
    first = nn.Sequential(nn.Linear(16, 16), nn.Tanh())
    stage = first if seat.rank == 0 or same else nn.Sequential(nn.Tanh(), nn.Linear(16, 32), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(stage.parameters(), 0.05)
    seat.open(stage, optimizer)
    losses, norms = [], []
    for x, y in batches(0, 20):
        optimizer.zero_grad()
        loss = None
        if seat.rank == 0:
            made = stage(x)
            dist.send(made.detach(), 1)
            gradient = torch.empty_like(made)
            dist.recv(gradient, 1)
            made.backward(gradient)
        else:
            x = torch.empty(8, 16)
            dist.recv(x, 0)
            loss = nn.functional.cross_entropy(stage(x.requires_grad_()), y)
            loss.backward()
            assert x.grad is not None
            dist.send(x.grad, 0)
            losses.append(loss.item())
        norms.append(
            float(nn.utils.get_total_norm([p.grad for p in stage.parameters() if p.grad is not None]))
        )
        optimizer.step()
        if loss is not None:
            seat.step(loss)
    return {"losses": losses, "norms": norms, **seat.close()}


case("pipeline")(lambda seat: train_stage(seat, same=False))
case("pipeline_same")(lambda seat: train_stage(seat, same=True))


@case("pipelining")
def train_schedule(seat: Seat) -> dict[str, Any]:
    """Torch's own pipeline: two stages of different modules, micro-batches one forward, one backward."""
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B

    torch.manual_seed(seat.rank)
    first = nn.Sequential(nn.Linear(16, 16), nn.Tanh())
    stage = first if seat.rank == 0 else nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(stage.parameters(), 0.05)
    seat.open(stage, optimizer)
    part = PipelineStage(stage, seat.rank, 2, torch.device("cpu"))
    schedule = Schedule1F1B(part, 2, loss_fn=nn.functional.cross_entropy)
    losses, norms = [], []
    for x, y in batches(0, 20):
        optimizer.zero_grad()
        parts: list[Tensor] = []
        if seat.rank == 0:
            schedule.step(x)
        else:
            schedule.step(target=y, losses=parts)
        norms.append(
            float(nn.utils.get_total_norm([p.grad for p in stage.parameters() if p.grad is not None]))
        )
        optimizer.step()
        losses += [loss.item() for loss in parts]
        if parts:
            seat.step(torch.stack(parts).mean().detach())
    return {"losses": losses, "norms": norms, **seat.close()}


class Block(nn.Module):
    """A layer of two projections, for tensor parallelism, and a norm that stays whole."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        """Residual; shape (B, 16)."""
        made: Tensor = x + self.down(torch.relu(self.up(self.norm(x))))
        return made


def shard(seat: Seat, kind: str, dtype: torch.dtype, steps: int = 20, nan: bool = False, **watch: Any) -> Any:
    """Train sharded; the norms that torch gives for the whole gradient, and the parameters' after it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block(), nn.Linear(16, 4)).to(dtype)
    if kind == "fsdp":
        mesh = init_device_mesh("cpu", (seat.ranks,))
    elif kind == "hsdp":
        mesh = init_device_mesh("cpu", (2, seat.ranks // 2), mesh_dim_names=("copies", "shards"))
    else:
        grid = init_device_mesh("cpu", (2, seat.ranks // 2), mesh_dim_names=("data", "model"))
        mesh = grid["data"]
        for block in (model[0], model[1]):
            parallelize_module(block, grid["model"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    for layer in (*model, model):
        if kind != "tensor":
            fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    seat.open(model, optimizer, **watch)
    losses, norms = [], []
    data = {"tensor": 0, "mesh": seat.rank // 2}.get(kind, seat.rank)
    for step, (x, y) in enumerate(batches(data, steps, dtype)):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(break_batch(seat, step, model, x) if nan else x), y)
        loss.backward()
        norms.append(measure_norm(model))
        optimizer.step()
        seat.step(loss)
        losses.append(loss.item())
    return {"losses": losses, "norms": norms, **seat.close()}


def measure_norm(model: nn.Module) -> float:
    """Torch's norm of the full gradient, in float64."""
    whole = [
        g.full_tensor() if hasattr(g, "full_tensor") else g
        for p in model.parameters()
        if (g := p.grad) is not None
    ]
    return float(nn.utils.get_total_norm([g.double() for g in whole]))


case("fsdp2")(lambda seat: shard(seat, "fsdp", torch.float32))
case("fsdp2_folderless")(lambda seat: shard(seat, "fsdp", torch.float32, run=None))
case("fsdp2_64")(lambda seat: shard(seat, "fsdp", torch.float64))
case("fsdp2_three", 3)(lambda seat: shard(seat, "fsdp", torch.float32))
case("fsdp2_nan")(lambda seat: shard(seat, "fsdp", torch.float32, nan=True))
case("fsdp2_raise")(lambda seat: shard(seat, "fsdp", torch.float32, nan=True, on_finding="raise"))
case("fsdp2_guard")(lambda seat: shard(seat, "fsdp", torch.float32, nan=True, on_finding="guard"))
case("hsdp", 4)(lambda seat: shard(seat, "hsdp", torch.float32))
case("mesh", 4)(lambda seat: shard(seat, "mesh", torch.float32))
case("mesh_64", 4)(lambda seat: shard(seat, "mesh", torch.float64))
case("tensor", 4)(lambda seat: shard(seat, "tensor", torch.float32))
