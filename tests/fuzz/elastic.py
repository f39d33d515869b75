"""A training that torchrun starts again when a rank dies (`python -m torch.distributed.run`).

The first rank saves after every step; the second one dies once. `FOLDER`: where checkpoints, the record and
what the ranks end with go; `WATCHED`: whether there is a watch; `PORTS`: where the ranks meet, one for each
start, since a store that outlives them still holds the addresses of the dead.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tests.fuzz.rank_cases import Seat, batches, case, net
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import unvanish

STEPS, DEATH = 14, 6
STARTS = 4


@case("elastic", 1)
def launch(seat: Seat) -> dict[str, Any]:
    """Two ranks under torchrun, restarted once; what they ended with."""
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*call, "--max-restarts", str(STARTS - 1), "-m", "tests.fuzz.elastic"],
        env={
            **os.environ,
            "FOLDER": str(seat.folder),
            "WATCHED": str(int(seat.watched)),
            "PORTS": " ".join(map(str, _find_ports(STARTS))),
        },
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    found = [json.loads(p.read_text()) for p in sorted(seat.folder.glob("ended.*.json"))]
    print(done.stdout + done.stderr)
    notes = [note for one in found for note in one["notes"]]
    failure = next((one["failure"] for one in found if one["failure"]), "")
    return {
        "losses": [done.returncode, *(one["losses"] for one in found)],
        "notes": notes,
        "failure": failure,
    }


def _find_ports(count: int) -> list[int]:
    """Free ports of this machine."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def train() -> None:
    """One rank: go on from the checkpoint, if there is one."""
    port = os.environ["PORTS"].split()[int(os.environ["TORCHELASTIC_RESTART_COUNT"])]
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # torchrun sets it itself
    meeting = f"tcp://127.0.0.1:{port}"
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    folder = Path(os.environ["FOLDER"])
    folder.mkdir(parents=True, exist_ok=True)
    model = DistributedDataParallel(net())
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    file, first = folder / "checkpoint.pt", 0
    if file.exists():
        saved = torch.load(file)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"] + 1
    watch = None
    if os.environ["WATCHED"] == "1":
        run, start = folder / "run", first if first else None
        watch = unvanish.watch(model, optimizer, run=run, start=start, every=2, on_finding="silent")
    losses = []
    for step, (x, y) in enumerate(batches(rank, STEPS)):
        if step < first:
            continue
        dist.barrier()  # the checkpoint of the step before is written
        if step == DEATH and rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os._exit(3)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if rank == 0:
            whole = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(whole, folder / "partial.pt")
            (folder / "partial.pt").replace(file)
    failure, notes = "", []
    if watch is not None:
        watch.close()
        failure, notes = watch.failure, watch.notes
    ended = {"losses": losses, "failure": failure, "notes": notes}
    (folder / f"ended.{rank}.json").write_text(json.dumps(ended))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    train()
