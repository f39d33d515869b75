"""`watch` on two real processes over gloo: nothing changes, no rank waits, and what both saw is joined."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from unvanish.store import open_run
from unvanish.store.joining import Holding, add_logs, join_norms

ROOT = Path(__file__).parents[3]
NAMES = ("uneven_join", "skip_one", "only1", "nan_folderless", "pipeline", "fsdp2")


def test_two_ranks_train_as_without_a_watch() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.ranks", "--together", *NAMES],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("as without a watch") == len(NAMES), done.stdout


def test_replicas_are_averaged_and_shards_added() -> None:
    logs, there = np.log([[3.0, 3.0], [4.0, 4.0]]), np.array([[True, True], [True, False]])
    shards = [Holding(r, 2, "a", 2) for r in (0, 1)]
    copies = [Holding(r, 2, "a", 1) for r in (0, 1)]
    stages = [Holding(r, 2, str(r), 1) for r in (0, 1)]
    np.testing.assert_allclose(np.exp(join_norms(logs, there, shards)), [5.0, np.nan])
    np.testing.assert_allclose(np.exp(join_norms(logs, there, copies)), [np.sqrt(12.5), 3.0])
    np.testing.assert_allclose(np.exp(join_norms(logs, there, stages)), [5.0, np.nan])


def test_a_part_of_the_shards_is_no_norm() -> None:
    one = [Holding(0, 2, "a", 2)]
    assert np.isnan(join_norms(np.zeros((1, 1)), np.ones((1, 1), bool), one)).all()


def test_a_nan_of_any_rank_stays_and_nothing_overflows() -> None:
    logs = np.array([[np.nan, 800.0, -np.inf], [0.0, 800.0, -np.inf]])
    joined = join_norms(logs, np.ones((2, 3), bool), [Holding(r, 2, "a", 2) for r in (0, 1)])
    assert np.isnan(joined[0]) and joined[2] == -np.inf
    np.testing.assert_allclose(joined[1], 800 + np.log(2) / 2)
    assert add_logs(np.full((2, 1), np.inf))[0] == np.inf


def test_one_process_writes_what_it_always_wrote(tmp_path: Path) -> None:
    import torch

    import unvanish

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, run=tmp_path, every=1):
        for _ in range(3):
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
    run = open_run(tmp_path)
    assert [p.name for p in tmp_path.glob("*.sqlite")] == ["run.sqlite"]
    assert run.facts().keys().isdisjoint({"rank", "sessions", "layout", "shards", "relayed"})
    assert run.lacking() == {} and len(run.steps()["step"]) == 3
