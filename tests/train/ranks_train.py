"""What `test_ranks_train` runs on each process: a training of the same data, replicated or sharded."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unvanish.train import Loaders, Model


def main(kind: str, folder: str) -> None:
    """Train for two epochs, stop after the first where asked to, and write what each process has."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    torch.manual_seed(1)
    train = TensorDataset(torch.randn(64, 8), torch.randint(0, 4, (64,)))
    val = TensorDataset(torch.randn(22, 8), torch.randint(0, 4, (22,)))  # the last batch is padded
    data = Loaders(DataLoader(train, 16), DataLoader(val, 16), facts={"classes": 4})
    rank = int(os.environ.get("RANK", "0"))
    arguments = {"project": folder, "name": kind.partition("-")[0], "epochs": 2, "batch": 16, "device": "cpu",
                 "plots": False, "verbose": False, "lr0": 0.01, "clip": 1.0, "budget": 1.0}  # fmt: skip
    model = Model(net)
    if kind == "fsdp":
        arguments["sharding"] = "fsdp"
    if kind.endswith("-again"):
        results = model.train(data, resume=Path(folder, kind.partition("-")[0]), epochs=3, verbose=False)
    else:
        results = model.train(data, **arguments)
    outcome = {
        "rows": list(results.rows),
        "findings": [f.code for f in results.findings],
        "steps": results.steps,
    }
    Path(folder, f"{kind}-{rank}.json").write_text(json.dumps(outcome))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may abort an interpreter that ends in its own time


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
