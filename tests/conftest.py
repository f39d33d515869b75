"""One thread for every test, and the command `unvanish` as a person would run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unvanish.core.omissions import be_strict

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # of a background job or under nohup; children inherit it
        signal.signal(number, usual)

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """What an examination cannot measure is raised: on the models of ordinary tests nothing is left out."""
    with be_strict():
        yield


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `unvanish ARGS` in a folder of its own, without colours; returns code, stdout and stderr."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "unvanish", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120", **environment},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    return run
