"""Resuming: bit by bit what the run without a break gives, between epochs and in the middle of one."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from unvanish.store import open_run
from unvanish.train import Model, TrainError
from unvanish.train.loop.interrupt import Interrupted

PLAIN = {"optimizer": "sgd", "clip": 1.0}
RICH = {"optimizer": "adamw", "clip": "zclip", "accumulate": 2, "label_smoothing": 0.1, "cos_lr": True}


def outcome(folder):
    """Weights, state and rows of a run, to be compared bit by bit."""
    weights = load_file(folder / "weights" / "last.safetensors")
    state = load_file(folder / "weights" / "last.state.safetensors")
    return weights, state, (folder / "results.csv").read_bytes()


def same(a, b):
    """Whether two outcomes are equal in every bit."""
    for mine, theirs in zip(a[:2], b[:2], strict=True):
        assert set(mine) == set(theirs)
        assert [k for k in mine if not torch.equal(mine[k], theirs[k])] == []
    return a[2] == b[2]


def stopped_at(step, module):
    """A model that gets Ctrl-C after a step."""
    model = Model(module)

    def stop(trainer):
        if trainer.record.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    model.add_callback("on_train_batch_end", stop)
    return model


@pytest.mark.parametrize("settings", [PLAIN, RICH])
@pytest.mark.parametrize("watch", [False, True])
def test_own_loaders_go_on_bit_by_bit(trained, tmp_path, settings, watch, network, loaders):
    arguments = {"epochs": 4, "watch": watch, **settings}
    trained(network(), name="straight", **arguments)
    model = Model(network())
    model.add_callback("on_fit_epoch_end", lambda t: setattr(t, "stop", t.record.epoch == 2))
    trained(model, name="halves", **arguments)
    assert len((tmp_path / "halves" / "results.csv").read_text().splitlines()) == 3
    Model(network(5)).train(loaders(), resume=tmp_path / "halves", verbose=False)
    with pytest.raises(Interrupted, match=r"stopped in epoch 3 after step 8|stopped in epoch 2 after step 8"):
        trained(stopped_at(8, network()), name="broken", **arguments)
    with pytest.raises(Interrupted, match="stopped in epoch"):  # and once more
        model = stopped_at(10, network(6))
        model.train(loaders(), resume=tmp_path / "broken" / "weights" / "last.safetensors", verbose=False)
    Model(network(7)).train(loaders(), resume=tmp_path / "broken", verbose=False)
    straight = outcome(tmp_path / "straight")
    assert same(straight, outcome(tmp_path / "halves"))
    assert same(straight, outcome(tmp_path / "broken"))


def test_augmented_data_go_on_bit_by_bit(trained, tmp_path):
    def model():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, 2), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(),
            torch.nn.Dropout(0.3), torch.nn.Linear(72, 10),
        )  # fmt: skip

    trained(model(), "digits.yaml", name="straight", epochs=2, batch=128)
    first = Model(model())
    first.add_callback(
        "on_train_batch_end", lambda t: t.record.step == 15 and os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(Interrupted):
        trained(first, "digits.yaml", name="broken", epochs=2, batch=128)
    Model(model()).train(resume=tmp_path / "broken", verbose=False)
    assert same(outcome(tmp_path / "straight"), outcome(tmp_path / "broken"))


def test_the_watch_changes_no_number(trained, tmp_path, network):
    trained(network(), name="seen", epochs=2, watch=True)
    trained(network(), name="unseen", epochs=2, watch=False)
    assert same(outcome(tmp_path / "seen"), outcome(tmp_path / "unseen"))


def test_resume_is_refused_where_it_would_be_another_run(trained, tmp_path, network, loaders):
    trained(network(), epochs=1)
    with pytest.raises(TrainError, match="the run has ended, after 1 epochs"):
        trained(network(), resume=True)
    with pytest.raises(TrainError, match=r"resume continues with lr0=None, not 0\.1"):
        Model(network()).train(loaders(), resume=tmp_path / "run", lr0=0.1, epochs=2)
    with pytest.raises(TrainError, match=r"holds no weights/last\.state\.safetensors"):
        Model(network()).train(loaders(), resume=tmp_path)


def test_a_run_can_be_made_longer(trained, tmp_path, network, loaders):
    trained(network(), epochs=1)
    results = Model(network()).train(loaders(), resume=tmp_path / "run", epochs=3, verbose=False)
    assert results.epochs == 3 and [r["epoch"] for r in results.rows] == [1, 2, 3]


def test_true_takes_the_run_that_was_saved_last(trained, tmp_path, network, loaders):
    trained(network(), name="old", epochs=1)
    trained(network(), name="new", epochs=1)
    results = Model(network()).train(loaders(), resume=True, project=str(tmp_path), epochs=2, verbose=False)
    assert results.save_dir == tmp_path / "new"


@pytest.mark.parametrize("step", [1, 6, 9, 17])
def test_what_a_kill_leaves_is_resumed_to_weights_table_and_record_that_agree(
    trained, tmp_path, network, loaders, step
):
    """A copy of the folder in the middle of a step is what a kill there leaves."""
    arguments = {"epochs": 3, "watch": True}
    trained(network(), name="straight", **arguments)
    model = Model(network())

    def copy(trainer):
        if trainer.record.step == step:
            trainer.watch.flush()  # rows of steps that the checkpoint does not know
            shutil.copytree(tmp_path / "run", tmp_path / "killed")

    model.add_callback("on_train_batch_end", copy)
    trained(model, **arguments)
    (tmp_path / "killed" / "weights" / ".5f.partial.safetensors").write_bytes(b"half")
    before = open_run(tmp_path / "killed").steps()["step"].tolist()
    assert before == list(range(step)) and not open_run(tmp_path / "killed").standing().closed
    Model(network(5)).train(loaders(), resume=tmp_path / "killed", verbose=False)
    assert same(outcome(tmp_path / "straight"), outcome(tmp_path / "killed"))
    mine, theirs = (open_run(tmp_path / name).steps() for name in ("killed", "straight"))
    assert mine["step"].tolist() == list(range(18)) and mine["loss"].tolist() == theirs["loss"].tolist()
    names = {p.name for p in (tmp_path / "killed").rglob("*")}
    assert not [n for n in names if "partial" in n or "lock" in n]


def test_a_run_killed_before_its_results_were_written_is_brought_to_its_end(
    trained, tmp_path, network, loaders
):
    trained(network(), epochs=1)
    best = (tmp_path / "run" / "weights" / "best.safetensors").read_bytes()
    (tmp_path / "run" / "results.json").unlink()
    results = Model(network()).train(loaders(), resume=tmp_path / "run", verbose=False)
    assert results.epochs == 1 and (tmp_path / "run" / "results.json").exists()
    assert (tmp_path / "run" / "weights" / "best.safetensors").read_bytes() == best
    with pytest.raises(TrainError, match="the run has ended"):
        Model(network()).train(loaders(), resume=tmp_path / "run", verbose=False)
