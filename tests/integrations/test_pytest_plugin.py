"""The pytest plugin: light at start, one fixture, the project's settings."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

PLUGIN = ("-p", "unvanish.integrations.pytest_plugin")

NETS = """
import torch
from torch import nn

def well():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(32, 10)

def sick():
    torch.manual_seed(0)
    layers = [part for _ in range(20) for part in (nn.Linear(10, 10), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(10, 4)), torch.randn(32, 10)
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest with the plugin on a file, in a process of its own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    pytester.makepyfile(nets=NETS)

    def start(source, *arguments, settings=""):
        pytester.makefile(".toml", pyproject=settings)
        pytester.makepyfile(test_mine=source)
        return pytester.runpytest_subprocess(*PLUGIN, *arguments)

    return start


def test_torch_is_not_imported_at_start(run):
    result = run(
        "import sys\ndef test(): assert not {'torch', 'numpy', 'unvanish.core.trace'} & set(sys.modules)"
    )
    result.assert_outcomes(passed=1)


def test_a_healthy_model_passes_and_a_sick_one_fails_with_the_report(run):
    result = run(
        "import nets\n"
        "def test_well(assert_healthy): assert assert_healthy(*nets.well()).healthy\n"
        "def test_sick(assert_healthy): assert_healthy(*nets.sick())\n"
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*[[]ACT002[]] contracting-activation*"])


SICK = "import nets\ndef test_sick(assert_healthy): assert_healthy(*nets.sick())\n"


@pytest.mark.parametrize(
    ("arguments", "settings", "passed"),
    [
        ((), "", 0),
        (("--unvanish-fail-on", "never"), "", 1),
        ((), '[tool.unvanish]\nfail-on = "never"', 1),
        (("--unvanish-fail-on", "warning"), '[tool.unvanish]\nfail-on = "never"', 0),
        ((), '[tool.unvanish]\nselect = ["GRF"]', 1),
    ],
)
def test_the_option_and_the_project_decide(run, arguments, settings, passed):
    run(SICK, *arguments, settings=settings).assert_outcomes(passed=passed, failed=1 - passed)


def test_what_the_project_ignores_with_a_reason_does_not_fail(run):
    table = '[tool.unvanish]\nignore = [{code = "%s", path = "%s", reason = "studied"}]'
    run(SICK, settings=table % ("ACT", "*")).assert_outcomes(passed=1)
    run(SICK, settings=table % ("ACT", "3")).assert_outcomes(failed=1)


MODELS = """
[tool.unvanish.models.well]
model = "nets.py:well"
[tool.unvanish.models.sick]
model = "nets.py:sick"
[tool.unvanish.models.none]
model = "nets.py:none"
"""


def test_the_models_of_the_project_are_tests_if_the_run_asks_for_them(run):
    run("def test(): pass", settings=MODELS).assert_outcomes(passed=1)
    result = run("def test(): pass", "--unvanish", "-v", settings=MODELS)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        ["*unvanish[[]well[]] PASSED*", "*error[[]ACT002[]]*", "*nets.py has no 'none'*"]
    )
    run("", "--unvanish", "-k", "sick", "--unvanish-fail-on", "never", settings=MODELS).assert_outcomes(
        passed=1
    )


def test_a_wrong_table_of_models_is_a_usage_error(run):
    result = run("def test(): pass", "--unvanish", settings="[tool.unvanish.models.net]\nmodl = 'x'")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'net' must name its model*"])


def test_an_unknown_level_is_refused(run):
    result = run(SICK, "--unvanish-fail-on", "warn")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_the_entry_point_is_declared():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"unvanish": "unvanish.integrations.pytest_plugin"}
