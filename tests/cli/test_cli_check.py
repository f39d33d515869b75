"""`unvanish check`: exit codes, reports, settings, and models that crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest

SICK = ("check", "net.py:sick", "--input", "10")
WELL = ("check", "net.py:made", "--data", "net.py:batch", "--loss", "cross_entropy")


def test_a_healthy_model_gives_0(command, folder):
    answer = command(*WELL)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "net.py:made" in answer.stdout


def test_findings_give_1(command, folder):
    answer = command(*SICK)
    assert (answer.returncode, answer.stderr) == (1, "")
    assert "ACT002" in answer.stdout
    assert "\x1b" not in answer.stdout


@pytest.mark.parametrize(("level", "code"), [("note", 1), ("warning", 1), ("never", 0)])
def test_fail_on_decides(call, level, code):
    assert call(*SICK, "--fail-on", level).code == code


def test_the_project_decides_where_the_call_does_not(call, folder):
    (folder / "pyproject.toml").write_text('[tool.unvanish]\nfail-on = "never"\n')
    assert call(*SICK).code == 0
    assert call(*SICK, "--fail-on", "warning").code == 1
    (folder / "pyproject.toml").write_text('[tool.unvanish]\nselect = ["GRF"]\n')
    assert call(*SICK).code == 0
    assert call(*SICK, "--select", "ACT").code == 1


def test_a_rate_is_tried(call):
    well = call(*WELL, "--lr", "1e-4")
    assert well.code == 0 and "note[OPT008] beyond-critical-step" in well.out
    assert call(*WELL, "--lr", "1e6").code == 1
    wrong = call(*WELL, "--lr", "0")
    assert wrong.code == 2 and "'--lr': 0.0 is no learning rate" in wrong.err


def test_select_and_ignore(call):
    assert call(*SICK, "--select", "GRF,num").code == 0
    assert call(*SICK, "--select", "ACT", "--ignore", "ACT").code == 0


def test_json_alone_on_stdout(command, folder):
    answer = command("check", "net.py:talking", "--input", "10", "--json", "-")
    assert answer.returncode == 0
    assert json.loads(answer.stdout)["subject"] == "net.py:talking"
    assert answer.stderr == "talking to stdout\n"


def test_reports_are_written(call, folder):
    answer = call(*SICK, "--html", "report.html", "--json", "report.json")
    assert answer.code == 1
    assert answer.err == "wrote report.html\nwrote report.json\n"
    assert "ACT002" in (folder / "report.html").read_text()
    assert json.loads((folder / "report.json").read_text())["subject"] == "net.py:sick"


def test_the_same_seed_gives_the_same_numbers(call):
    def ledger(seed: int) -> dict[str, object]:
        document = json.loads(call("check", "net.py:Net", "--input", "10", "--json", "-", "--seed", seed).out)
        return {key: value for key, value in document.items() if key != "seconds"}

    assert ledger(1) == ledger(1) != ledger(2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--html report.txt", ["--html report.txt must end in .html"]),
        ("--json report.html", ["--json report.html must end in .json"]),
        ("--html no/report.html", ["there is no folder no"]),
        (
            "--fail-on warn",
            ["'warn' is not a level", "did you mean 'warning'", "note, warning, error, never"],
        ),
        ("--select ACT01", ["--select: no rule code begins with 'ACT01'", "did you mean 'ACT001'"]),
        ("--ignore ZZZ", ["--ignore: no rule code begins with 'ZZZ'", "`unvanish rules` lists them"]),
    ],
)
def test_a_mistake_is_reported_in_one_line(call, arguments, expected):
    answer = call(*WELL, *arguments.split())
    assert (answer.code, answer.out) == (2, "")
    for part in expected:
        assert part in answer.line


def test_a_wrong_setting_of_the_project_is_reported(call, folder):
    (folder / "pyproject.toml").write_text("[tool.unvanish]\nselct = []\n")
    answer = call(*WELL)
    assert answer.code == 2
    assert (
        f"{folder / 'pyproject.toml'}: [tool.unvanish] has no key 'selct' (did you mean 'select'?)"
        in answer.line
    )


def test_a_crash_shows_the_models_own_traceback_and_its_place(command, folder):
    answer = command("check", "net.py:Crash", "--input", "10")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "return x @ torch.ones(3, 3)" in answer.stderr
    assert "unvanish/" not in answer.stderr
    line = answer.stderr.rstrip().rpartition("\n")[2]
    assert line.startswith("unvanish: net.py:Crash crashed in inner.1: RuntimeError: mat1 and mat2")
    assert "(net.py, line " in line
    assert "shape (8, 10)" in line


def test_a_wrong_batch_shape_is_the_models_crash(call):
    answer = call("check", "net.py:Net", "--input", "11")
    assert answer.code == 2
    assert "crashed in first" in answer.line


def test_a_loss_that_is_not_scalar(call):
    answer = call("check", "net.py:made", "--data", "net.py:batch", "--loss", "net.py:vector_loss")
    assert answer.code == 2
    assert "scalar" in answer.line


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_ends_with_one_line_and_130(folder):
    (folder / "slow.py").write_text(
        "import sys, time\n\ndef make():\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    run = [sys.executable, "-m", "unvanish", "check", "slow.py:make", "--input", "3"]
    with subprocess.Popen(
        run,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "unvanish: stopped with Ctrl-C\n")


@pytest.mark.parametrize(
    "arguments", ["chekc", "check", "check net.py:made --batch-size 0", "check net.py:made --nope"]
)
def test_a_wrong_call_gives_2(command, folder, arguments):
    answer = command(*arguments.split())
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert answer.stderr.startswith("unvanish: ") and answer.stderr.count("\n") == 1


def test_help_names_every_command(command):
    answer = command("--help")
    assert answer.returncode == 0
    for name in ("check", "explain", "rules", "demo"):
        assert f"  {name} " in answer.stdout
    assert command("--version").stdout == "unvanish 0.1.0\n"


def test_help_needs_neither_torch_nor_numpy():
    code = "import sys; from unvanish.cli import app; app(['check', '-h'], standalone_mode=False)"
    code += "; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy"} & set(run.stdout.split())
