"""A part of what `python -m tests.fuzz.loops` and `python -m tests.fuzz.faults` try by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "call", [["tests.fuzz.loops", "--count", "25"], ["tests.fuzz.faults", "--every", "97"]], ids=str
)
def test_trainings_are_the_same_with_a_watch(call: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *call], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
