"""The lines of a run: an epoch in progress, and its row."""

from __future__ import annotations

import pytest

from unvanish.train.loop.progress import Epoch, Progress, format_time

ROW = {"epoch": 1, "step": 6, "train/loss": 1.25, "metrics/accuracy": 0.5, "gradient": 0.125}


def test_an_epoch_says_how_fast_and_how_long():
    # 4 of 10 batches, 2 of them in the last 4 seconds; a second epoch follows: 16 batches of 2 seconds
    epoch = Epoch(0, 2, batches=10, before=2, done=4, samples=64, started=100.0)
    bar, speed, left = epoch.describe(104.0)
    assert bar == f"1/2 {'━' * 8}{' ' * 12} 4/10"
    assert (speed, left) == ("16 samples/s", "0:32 left")


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0:00"), (125, "2:05"), (3725, "1:02:05")])
def test_times_are_short(seconds, text):
    assert format_time(seconds) == text


def test_rows_stand_under_one_header(capsys):
    progress = Progress(True, "accuracy")
    progress.begin_epoch(0, 3, 6)
    progress.print_row(ROW, "healthy")
    progress.print_row({**ROW, "epoch": 2}, "")
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["epoch", "step", "train/loss", "val/loss", "accuracy", "gradient", "samples/s"]
    assert first.split() == ["1/3", "6", "1.25", "0.5", "0.125", "0", "healthy"]
    assert second.split()[0] == "2/3" and "healthy" not in second


def test_a_silent_run_prints_nothing(capsys):
    progress = Progress(False, "accuracy")
    progress.say("text")
    progress.print_row(ROW, "")
    assert capsys.readouterr().out == ""


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch):
    progress = Progress(True, "accuracy")

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(progress.console, "print", fail)
    progress.say("one")
    assert not progress.shown
    progress.say("two")
