"""Two gloo processes of each library: the weights are those without a watch, and both ranks stop together.

Not here: Ultralytics, which trains in several processes on devices alone.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("ranks.py")
pytestmark = pytest.mark.slow


def run(library: str, watched: bool, folder: Path, port: int) -> dict[tuple[str, str], list[str]]:
    """By kind and rank: steps, sum over the weights, what was found."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", str(port), PROGRAM, library, str(watched), folder / "out"),
        ],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = re.findall(r"RESULT (\w+) (\d) (\S+) (\S+) ([\w,-]+);", done.stdout)  # lines may be joined
    return {(kind, rank): rest for kind, rank, *rest in told}


@pytest.mark.parametrize(
    "library", ["lightning", "transformers", "accelerate", "ignite", "fastai", "composer", "keras"]
)
def test_two_processes_train_as_without_a_watch_and_stop_together(library: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    port = 29600 + os.getpid() % 300
    alone, watched = (run(library, on, tmp_path, port + on) for on in (False, True))
    for rank in "01":
        steps, total, found = watched["healthy", rank]
        assert (steps, total) == tuple(alone["healthy", rank][:2])
        assert found == "nothing"
        assert {"ACT002", "DEP001"} & set(watched["sick", rank][2].split(",")) or rank == "1"
    assert watched["sick", "0"][:2] == watched["sick", "1"][:2]
    assert int(watched["sick", "0"][0]) < int(alone["sick", "0"][0])


def test_a_rank_that_ends_early_is_waited_for_by_none_and_the_other_one_stops(tmp_path: Path) -> None:
    port = 29600 + os.getpid() % 300
    alone, watched = (run("uneven", on, tmp_path, port + on) for on in (False, True))
    for rank, steps in (("0", "40"), ("1", "29")):
        assert watched["healthy", rank] == [steps, alone["healthy", rank][1], "nothing"]
    assert [alone["sick", rank][0] for rank in "01"] == ["3", "400"]
    assert watched["sick", "0"][0] == "3" and int(watched["sick", "1"][0]) < 100
