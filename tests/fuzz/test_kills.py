"""Twenty kills; `python -m tests.fuzz.kills --count N --seed S` makes as many as one likes."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_killed_trainings_resume_to_the_same_bits():
    call = [sys.executable, "-m", "tests.fuzz.kills", "--count", "20"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
