"""Every training of several ranks ends as it does without a watch: one pair of runs for each case."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz.rank_cases import CASES

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_watch_changes_nothing_on_any_rank(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.ranks", name],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
