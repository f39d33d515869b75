"""A network for scenes trains on the free cores; the number stays with its run."""

from __future__ import annotations

import os
from dataclasses import replace

import psutil
import pytest
import torch

from unvanish.train.arguments import settle
from unvanish.train.loop import cores
from unvanish.train.session import resume_arguments

PLAIN = settle({}, {})


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    for name in cores.FIXED:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def hold(monkeypatch, *busy):
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: list(busy))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(len(busy))), raising=False)


@pytest.mark.parametrize(
    ("busy", "threads"),
    [
        ((0, 0), 2),
        ((100, 0), 1),
        ((3, 97), 1),
        ((20, 25), 2),
        ((100, 100), 1),
        ((60, 60), 1),
        ((0, 0, 100, 0), 2),
    ],
)
def test_as_many_threads_as_cores_are_free_and_no_more_than_torch_takes(monkeypatch, busy, threads):
    hold(monkeypatch, *busy)
    found, word = cores.choose_threads(PLAIN, True, "cpu", 1)
    assert found == threads and bool(word) == (threads < 2)


def test_only_the_cores_of_this_process_count(monkeypatch):
    hold(monkeypatch, 0, 100, 100, 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert cores.count_free_cores() == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "heavy", "device", "processes", "fixed"),
    [
        (2, True, "cpu", 1, ""),
        (None, False, "cpu", 1, ""),
        (None, True, "cuda", 1, ""),
        (None, True, "cpu", 2, ""),
    ]
    + [(None, True, "cpu", 1, name) for name in cores.FIXED],
)
def test_what_was_asked_for_stays(monkeypatch, given, heavy, device, processes, fixed):
    hold(monkeypatch, 100, 100)
    if fixed:
        monkeypatch.setenv(fixed, "2")
    arguments = replace(PLAIN, threads=given)
    assert cores.choose_threads(arguments, heavy, device, processes) == (2, "")


def test_the_process_has_its_threads_again_also_after_an_exception():
    with pytest.raises(ValueError, match="inside"), cores.use_threads(1):
        assert torch.get_num_threads() == 1
        raise ValueError("inside")
    assert torch.get_num_threads() == 2


def test_a_resumed_run_keeps_its_threads_unless_others_are_given():
    saved = {"arguments": {"threads": 1, "epochs": 2}, "record": {"epoch": 1}}
    assert resume_arguments(saved, {}, ended=False).threads == 1
    assert resume_arguments(saved, {"threads": 2}, ended=False).threads == 2
