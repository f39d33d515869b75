"""`import unvanish` is quick and light, and still offers its names."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import unvanish


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_neither_torch_nor_numpy():
    loaded = python("import unvanish, sys; print(*sys.modules)").split()
    assert not {"torch", "numpy", "rich", "typer", "yaml"} & set(loaded)


def test_import_takes_less_than_150_ms():
    timed = "import time; t = time.perf_counter(); import unvanish; print(time.perf_counter() - t)"
    assert min(float(python(timed)) for _ in range(3)) < 0.15


def test_the_command_is_ready_in_400_ms():
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "unvanish", "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.4


def test_all_names_are_there():
    assert set(unvanish.__all__) <= set(dir(unvanish))
    for name in unvanish.__all__:
        assert getattr(unvanish, name) is not None
    assert unvanish.Trace.__module__ == "unvanish.core.trace"


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'chekc'"):
        _ = unvanish.chekc
