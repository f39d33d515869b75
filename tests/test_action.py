"""The steps of the GitHub Action and the entry of the pre-commit hook, run here as a runner would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(*[p for _ in range(20) for p in (nn.Linear(10, 10), nn.Sigmoid())])

    def forward(self, x):
        return self.body(x)
"""
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="a runner has bash")


@pytest.fixture
def workspace(tmp_path):
    """A workspace with a model in a folder, and a `python` on the path that is this one."""
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "python"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    shim.chmod(0o755)
    (tmp_path / "my models").mkdir()
    (tmp_path / "my models" / "net.py").write_text(NET)
    return tmp_path


@pytest.fixture
def start(workspace):
    """Run a script by bash as a runner does; the summary and the outputs are files of the workspace."""

    def run(script, folder=".", **given):
        more = {"GITHUB_STEP_SUMMARY": workspace / "summary", "GITHUB_OUTPUT": workspace / "output", **given}
        for file in ("summary", "output"):
            (workspace / file).touch()
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=workspace / folder,
            env={**os.environ, "PATH": f"{workspace / 'bin'}:{os.environ['PATH']}", **more},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def act(start, **inputs):
    """The step that checks, with the inputs of a workflow in place of the defaults."""
    step = ACTION["runs"]["steps"][1]
    values = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()} | inputs
    environment = {}
    for name, text in step["env"].items():
        key = re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", text)
        environment[name] = values[key[1]] if key else text
    return start(step["run"], values["working-directory"], **environment)


def test_every_input_is_used_and_every_one_that_is_used_is_declared():
    text = json.dumps(ACTION["runs"])
    assert set(re.findall(r"inputs\.([a-z-]+)", text)) == set(ACTION["inputs"])
    assert all("${{" not in step["run"] for step in ACTION["runs"]["steps"])  # no input becomes code


def test_findings_fail_the_step_and_are_shown(start, workspace):
    done = act(
        start,
        model="net.py:Net",
        input="10",
        arguments="--no-confirm\n--seed 1",
        **{"working-directory": "my models"},
    )
    assert done.returncode == 1
    assert "error[ACT002]" in done.stdout
    (annotation,) = [line for line in done.stdout.splitlines() if line.startswith("::")]
    assert annotation.startswith(
        "::error file=my models/net.py,line=10,title=ACT002 contracting-activation::"
    )
    assert "**fails: 1 finding**" in (workspace / "summary").read_text()
    assert (workspace / "output").read_text() == "sarif=my models/unvanish.sarif\n"
    report = json.loads((workspace / "my models" / "unvanish.sarif").read_text())
    (result,) = report["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert report["version"] == "2.1.0"
    assert place == {"artifactLocation": {"uri": "my%20models/net.py"}, "region": {"startLine": 10}}


def test_a_model_and_options_with_signs_of_the_shell_are_words(start, workspace):
    done = act(start, model="$(touch hacked).py:x", arguments="; touch hacked $(touch hacked)")
    assert done.returncode == 2 and "unvanish: " in done.stderr
    assert not (workspace / "hacked").exists() and (workspace / "output").read_text() == ""


def test_the_hook_runs(start):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["pass_filenames"] is False
    done = start(f"{hook['entry']} net.py:Net --input 10 --no-confirm --fail-on never", "my models")
    assert done.returncode == 0 and "ACT002" in done.stdout
