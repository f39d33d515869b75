"""Every file of cli/verbs is a command, found by being there; the help page keeps its order and is quick."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from unvanish.cli import WAITING, app, verbs
from unvanish.core.registry import modules

FILES = dict(modules(verbs.__name__, verbs.__path__))
CLINIC = ["check", "cure", "forecast", "phase", "explain", "rules", "cures", "demo", "show", "compare"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_a_command(name):
    module = FILES[name]
    assert callable(getattr(module, name, None)), f"cli/verbs/{name}.py holds no function {name}"
    assert isinstance(getattr(module, "ORDER", None), int), f"cli/verbs/{name}.py does not say its ORDER"
    assert getattr(module, name).__doc__, f"{name} has no docstring, which is its line on the help page"
    assert str(module.__doc__).startswith(f"`unvanish {name}"), f"{name}.py does not begin with its call"
    answer = CliRunner().invoke(app, [name, "--help"])
    assert answer.exit_code == 0 and name in answer.output


def test_no_two_have_one_place():
    orders = [verb.order for verb in verbs.find_verbs()]
    assert orders == sorted(set(orders))


def test_the_help_page_begins_with_the_clinic():
    names = [verb.run.__name__ for verb in verbs.find_verbs()]
    assert [name for name in names if name in CLINIC] == CLINIC
    assert names.index("compare") < names.index("zoo") < names.index("train")


def test_a_new_file_is_a_new_command(tmp_path, monkeypatch):
    (tmp_path / "wave_at.py").write_text('ORDER = 11\n\ndef wave_at() -> None:\n    """Wave."""\n')
    monkeypatch.setattr(verbs, "__path__", [*verbs.__path__, str(tmp_path)])
    names = [verb.run.__name__ for verb in verbs.find_verbs()]
    assert names[:2] == ["check", "wave_at"]
    del sys.modules[f"{verbs.__name__}.wave_at"]


def test_finding_the_commands_loads_nothing_heavy():
    code = "import sys, unvanish.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "numpy", "transformers", "sklearn"} & set(loaded.split())


@pytest.mark.parametrize(
    ("words", "given", "kept"),
    [
        (["rules"], {}, {"GOMP_SPINCOUNT": "1000"}),
        (["run", "nowhere.py"], {}, {}),  # its threads are the user's
        (["rules"], {"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        (["rules"], {"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
)
def test_threads_wait_briefly_unless_they_are_the_users_or_told_otherwise(monkeypatch, words, given, kept):
    with monkeypatch.context() as patch:
        for name in WAITING:
            patch.setenv(name, "")  # is put back afterwards
            patch.delenv(name)
        for name, value in given.items():
            patch.setenv(name, value)
        CliRunner().invoke(app, words)
        assert {name: os.environ[name] for name in WAITING if name in os.environ} == kept
