"""Sixty command lines; `python -m tests.fuzz.calls --count N --seed S` makes as many as one likes."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_every_call_ends_soon_and_a_wrong_one_is_one_line():
    call = [sys.executable, "-m", "tests.fuzz.calls", "--count", "60"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=115, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
