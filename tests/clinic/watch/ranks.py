"""What `test_watch_ranks` runs on each of two processes: a watched training, replicated or sharded."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import unvanish


def main(kind: str, folder: str) -> None:
    """Train for six steps; every rank writes what it saw as JSON."""
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(
        nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)
    )
    torch.manual_seed(1)
    x, y = torch.randn(8 * ranks, 8), torch.randint(0, 4, (8 * ranks,))
    x, y = x.chunk(ranks)[rank], y.chunk(ranks)[rank]
    if kind == "ddp":
        model = nn.parallel.DistributedDataParallel(model)
    elif kind == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (ranks,))
        for layer in (model[0], model[2], model[4]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watched = "unwatched" not in sys.argv
    watch = unvanish.watch(model, optimizer, run=folder, every=2, on_finding="log") if watched else None
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if watch is not None:
            watch.step(loss)
        losses.append(loss.item())
    result = {"losses": losses}
    if watch is not None:
        watch.close()
        trace = watch.diagnosis().trace
        result |= {
            "gradients": trace.column("gradient_log").tolist(),
            "backward": trace.column("backward_log").tolist(),
            "updates": trace.column("update_log").tolist(),
            "norms": [r["norm_log"] for r in watch.history.steps.rows],
            "sites": [s.label for s in trace.sites],
            "writes": watch.store is not None,
        }
    Path(folder, f"rank{rank}{'' if watched else '-plain'}.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may abort an interpreter that ends in its own time


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
