"""skorch's real `fit`: no bit changes, planted faults are named, a NaN batch is survived."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import pytest
import torch
from torch import nn

skorch = pytest.importorskip("skorch")
pytestmark = pytest.mark.filterwarnings("ignore", "error:unvanish")

from sklearn.base import clone  # noqa: E402 - only where skorch is

from unvanish.integrations.skorch import SkorchWatch  # noqa: E402


def fit(model: nn.Module, data: Any, watch: Any = None, **options: Any) -> Any:
    options = {"lr": 1e-3, "optimizer": torch.optim.Adam, "max_epochs": 2, **options}
    net = skorch.NeuralNetRegressor(
        model, batch_size=16, train_split=None, verbose=0, callbacks=watch and [("watch", watch)], **options
    )
    net.fit(*data)
    losses = [batch["train_loss"] for epoch in net.history for batch in epoch["batches"]]
    return losses, dict(net.callbacks_).get("watch"), net


def test_no_bit_changes(draw, tower) -> None:
    plain, _, _ = fit(tower(), draw())
    watched, ours, net = fit(tower(), draw(), SkorchWatch(on_finding="silent"))
    assert watched == plain
    assert (ours.watch.steps, ours.watch.findings, ours.watch.notes, ours.watch.closed) == (32, [], [], True)
    assert net.history[-1, "batches", -1, "unvanish/gradient_norm"] > 0


def test_planted_faults_are_named(draw, tower) -> None:
    _, ours, _ = fit(tower(nn.Sigmoid, 10), draw(), SkorchWatch(on_finding="silent", every=5))
    assert ours.watch.findings[0].code == "ACT002"
    watch = SkorchWatch(on_finding="silent", stop=True)
    losses, ours, _ = fit(tower(), draw(), watch, lr=1.0)
    assert {f.code for f in ours.watch.findings} & {"OPT001", "OPT008"} and len(losses) < 32


def test_a_batch_of_nan_is_survived_and_named_under_a_closure(draw, tower) -> None:
    _, ours, net = fit(tower(), draw(100), SkorchWatch(on_finding="guard"))
    assert "NUM001" in [f.code for f in ours.watch.findings]
    assert all(bool(torch.isfinite(p).all()) for p in net.module_.parameters())


def test_it_ends_with_a_training_that_raises(draw, tower) -> None:
    class Fails(nn.MSELoss):
        calls = 0

        def forward(self, *args: Any) -> Any:
            Fails.calls += 1
            if Fails.calls == 5:
                raise ValueError("the user's own")
            return super().forward(*args)

    net = skorch.NeuralNetRegressor(tower(), criterion=Fails, verbose=0, callbacks=[SkorchWatch()])
    with pytest.raises(ValueError, match="own"):
        net.fit(*draw())
    gc.collect()
    assert dict(net.callbacks_)["SkorchWatch"].watch.closed


def test_a_net_with_it_is_cloned_and_pickled(draw, tower) -> None:
    _, _, net = fit(tower(), draw(), SkorchWatch(on_finding="silent", every=3), max_epochs=1)
    other = clone(pickle.loads(pickle.dumps(net)))
    other.set_params(callbacks__watch__stop=True)
    other.fit(*draw())
    ours = dict(other.callbacks_)["watch"]
    assert ours.attachment_.stop is True and ours.watch.pace.every == 3


def test_findings_go_to_the_sink_if_the_net_is_verbose(draw, tower, capsys) -> None:
    told: list[str] = []
    for verbose in (1, 0):
        watch = SkorchWatch(every=5, sink=told.append)
        model, options = tower(nn.Sigmoid, 10), {"batch_size": 16, "max_epochs": 2, "train_split": None}
        net = skorch.NeuralNetRegressor(model, callbacks=[("watch", watch)], verbose=verbose, **options)
        net.set_params(callbacks__print_log=None)
        net.fit(*draw())
        assert capsys.readouterr().err.count("ACT002") == (not verbose)
    assert [text.count("error[ACT002]") for text in told] == [1]
