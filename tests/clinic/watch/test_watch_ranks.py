"""`watch` on two real processes over gloo: one reduction, one writer, and the numbers of one process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unvanish.store import open_run

SCRIPT = Path(__file__).parent / "ranks.py"


def launched(kind: str, folder: Path, *more: str) -> list[dict[str, Any]]:
    """Run the script on two processes; what each of them wrote."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(SCRIPT),
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [*command, kind, str(folder), *more], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[:3000]
    end = "-plain" if more else ""
    return [json.loads((folder / f"rank{r}{end}.json").read_text()) for r in (0, 1)]


def alone() -> list[float]:
    """The gradients' norms of the same training on the whole batch in this process."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    torch.manual_seed(1)
    x, y = torch.randn(16, 8), torch.randint(0, 4, (16,))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    norms = []
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norms.append(math.log(float(torch.nn.utils.get_total_norm(grads))))
        optimizer.step()
    return norms


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_see_what_one_process_sees(kind: str, tmp_path: Path) -> None:
    first, second = launched(kind, tmp_path)
    plain, _ = launched(kind, tmp_path, "unwatched")
    assert first["losses"] == plain["losses"]  # bit by bit
    assert first["writes"] and not second["writes"]
    for key in ("gradients", "backward", "updates", "norms"):
        np.testing.assert_allclose(first[key], second[key], atol=1e-9, err_msg=key)
    np.testing.assert_allclose(first["norms"], alone(), atol=1e-5)
    assert np.isfinite([v for v in first["gradients"] if v == v]).all()
    run = open_run(tmp_path)
    assert run.steps()["step"].tolist() == list(range(6))
    assert len(run.sample_steps()) == 3
