"""Training on two real processes over gloo: the steps of one process, one writer, and a resume across."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).parent / "ranks_train.py"


def launched(processes: int, kind: str, folder: Path) -> list[dict[str, Any]]:
    """Run the script on `processes` processes; returns what each of them wrote."""
    many = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(many if processes > 1 else []), str(SCRIPT), kind, str(folder)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{kind}-{r}.json").read_text()) for r in range(processes)]


def weights(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    """The last weights of a run."""
    return load_file(folder / kind / "weights" / "last.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_make_the_steps_of_one(kind, tmp_path):
    (one,) = launched(1, "one", tmp_path)
    first, second = launched(2, kind, tmp_path)
    assert first["rows"] == second["rows"] and first["steps"] == one["steps"] == 8
    for mine, theirs in zip(first["rows"], one["rows"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
    alone, together = weights(tmp_path, "one"), weights(tmp_path, kind)
    assert set(alone) == set(together)
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, together[name], rtol=1e-4, atol=1e-6)
    (again,) = launched(1, f"{kind}-again", tmp_path) if kind == "ddp" else (None,)
    if again is not None:
        assert again["steps"] == 12 and again["rows"][:2] == first["rows"]
