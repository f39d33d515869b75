"""Every option and argument of every command, with values that it cannot have: exit code 2 and one line."""

from __future__ import annotations

import os
import typing
from pathlib import Path

import pytest
import torch

from unvanish.cli.verbs import find_verbs

VERBS = {verb.run.__name__: verb.run for verb in find_verbs()}
NUMBERS = ["x", "", "nan", "inf", "-inf", "1e400", "-1", "9" * 400, "1,2", "[1]", "٣x", "None"]
PATHS = ["no/folder/x.html", "x" * 5000, "", "net.py", ".", "/", "a\nb", "x.html\x1b[31m"]
BASE = {
    "check": ["net.py:made", "--data", "net.py:batch"], "cure": ["net.py:made", "--data", "net.py:batch"],
    "forecast": ["net.py:made", "--data", "net.py:batch"], "phase": ["--activation", "tanh"], "show": ["run"],
}  # fmt: skip


def list_options(*kinds: type) -> list[tuple[str, str]]:
    """The options of the commands in `BASE` whose values are of these types."""
    found = []
    for verb in BASE:
        for hint in typing.get_type_hints(VERBS[verb].__wrapped__, include_extras=True).values():
            kind, *about = typing.get_args(hint) or [hint]
            info = about[0] if about else None
            words = (getattr(info, "default", None), *(getattr(info, "param_decls", None) or ()))
            named = [w for w in words if isinstance(w, str)]
            if named and named[0].startswith("--") and set(typing.get_args(kind) or [kind]) & set(kinds):
                found.append((verb, named[0]))
    return found


def wrong(answer) -> str:
    """The one line of an answer that says what is wrong."""
    assert (answer.code, answer.out) == (2, ""), answer
    assert answer.err.startswith("unvanish: ") and answer.err.count("\n") == 1, answer.err
    assert answer.line.isprintable() and len(answer.line) < 1300
    return answer.line


@pytest.mark.parametrize(("verb", "option"), list_options(int, float))
def test_no_number_is_no_number(call, verb, option):
    for value in NUMBERS:
        assert option in wrong(call(verb, *BASE[verb], option, value)), value


@pytest.mark.parametrize(("verb", "option"), list_options(Path))
def test_a_path_that_cannot_be_written_or_read_is_refused_before_the_work(call, folder, verb, option):
    before = sorted(os.listdir(folder))
    for value in PATHS:
        wrong(call(verb, *BASE[verb], option, value))
    assert [n for n in sorted(os.listdir(folder)) if n != "__pycache__"] == before


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("words", [["--nope"], ["--no pe"], ["-x"], ["", "", "", ""]])
def test_what_no_command_knows_is_one_line(call, verb, words):
    if verb == "zoo" and not words[0]:
        words = ["a", "b"]
    wrong(call(verb, *words))


@pytest.mark.parametrize("name", ["nowhere", "net.py", ".", "x" * 5000, "a\nb", "/dev/null"])
def test_what_holds_no_run_is_one_line(call, name):
    wrong(call("show", name))
    wrong(call("compare", name, name))


@pytest.mark.parametrize(
    "words",
    [
        "task=nope", "task=detect", "freeze=-3", "batch=1e20", "milestones=[0.1,nan]", "name=../x", "lr0=nan",
        "device=cuda:x", "imgsz=1e9", "cos_lr=true schedule=step", "data=", "model=", "data=3", "model=3",
        "=3", "epochs=" + "9" * 5000, "lr0=2001-99-99", "lr0=[[1]]", "epohcs=3", "norm=nope", "depth=-1",
        "resume=x", "depth=99999999", "width=99999999", "imgsz=16384", "imgsz=3000", "batch=99999999",
        "nbs=0",
    ],
)  # fmt: skip
def test_a_training_that_cannot_be_meant_is_one_line(call, folder, words):
    wrong(call("train", "model=resnet20.yaml", "data=digits.yaml", *words.split(" ")))
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        "val resume=true", "val model=", "predict model=x.safetensors source=", "train resume=nowhere",
        "export model=x.safetensors format=[1]", "predict model=resnet20.yaml source=net.py",
        "val model=net.py",
    ],
)  # fmt: skip
def test_what_follows_a_training_is_one_line_too(call, words):
    wrong(call(*words.split(" ")))


def test_a_random_input_that_would_not_fit_into_memory_is_refused(call):
    line = wrong(call("check", "net.py:made", "--input", "99999,99999"))
    assert "8 x 99999 x 99999 is more than the 50,000,000 numbers of a random batch" in line


def test_an_error_of_the_system_is_one_line(call, folder, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device", "/somewhere/x")

    monkeypatch.setattr(torch, "manual_seed", fail)
    assert wrong(call("check", "net.py:made")).endswith("No space left on device: /somewhere/x")


def test_nobody_reads_on(command):
    import subprocess
    import sys

    call = f"{sys.executable} -m unvanish rules | head -1"
    answer = subprocess.run(call, shell=True, capture_output=True, text=True, check=False, timeout=60)
    assert answer.stderr == "" and answer.stdout.count("\n") == 1
