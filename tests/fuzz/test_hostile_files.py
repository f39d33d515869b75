"""Thirty hostile files; `python -m tests.fuzz.files --count N --seed S` makes as many as one likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_hostile_files_are_shown_or_refused_in_one_line():
    call = [sys.executable, "-m", "tests.fuzz.files", "--count", "30"]
    top = Path(__file__).parents[2]
    done = subprocess.run(call, capture_output=True, text=True, timeout=115, check=False, cwd=top)
    assert done.returncode == 0, done.stdout + done.stderr
