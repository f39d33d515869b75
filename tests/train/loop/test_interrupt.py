"""Signals: the first one ends a training between two steps with everything saved, the second one at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from unvanish.train import TrainError
from unvanish.train.loop.interrupt import SIGNALS, Brake, Interrupted
from unvanish.train.model import Model


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_waits_for_the_step_and_the_second_does_not(number):
    before = signal.getsignal(number)
    with Brake() as brake:
        os.kill(os.getpid(), number)
        assert brake.pulled
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            signal.pause()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Brake() as brake:
            os.kill(os.getpid(), number)
            assert not brake.pulled
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_closed_terminal_saves_and_the_run_goes_on_later(trained, tmp_path, network, loaders):
    model = Model(network())
    model.add_callback(
        "on_train_batch_end", lambda t: t.record.step == 8 and os.kill(os.getpid(), signal.SIGHUP)
    )
    with pytest.raises(Interrupted, match="everything is saved"):
        trained(model, epochs=3)
    results = Model(network()).train(loaders(), resume=tmp_path / "run", verbose=False)
    assert results.epochs == 3 and results.steps == 18


def test_a_folder_is_trained_in_by_one(trained, tmp_path, network, loaders):
    trained(network(), epochs=1)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom unvanish.train.checkpoint.folder import claim\n"
        "with claim(Path(sys.argv[1])):\n    print('ready', flush=True)\n    time.sleep(60)"
    )
    call = [sys.executable, "-c", code, str(tmp_path / "run")]
    other = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "ready\n"
    for how in ({"resume": tmp_path / "run", "epochs": 2}, {"exist_ok": True, "epochs": 1}):
        with pytest.raises(TrainError, match=f"cannot be trained in: process {other.pid} on .* writes it"):
            trained(network(), **how) if "exist_ok" in how else Model(network()).train(loaders(), **how)
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 2  # nothing was touched
    other.kill()
    other.wait()
    other.stdout.close()
    assert Model(network()).train(loaders(), resume=tmp_path / "run", epochs=2, verbose=False).epochs == 2
