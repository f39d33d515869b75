"""fastai's real Learner: its own optimizers and torch's within a wrapper, accumulation, clipping."""

from __future__ import annotations

import gc
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("fastai")
pytestmark = pytest.mark.filterwarnings("ignore", "error:unvanish")

with warnings.catch_warnings():  # fastai and what it imports
    warnings.simplefilter("ignore")
    from fastai.callback.core import Callback
    from fastai.callback.progress import CSVLogger
    from fastai.callback.training import GradientAccumulation, GradientClip
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner
    from fastai.metrics import AccumMetric, mse
    from fastai.optimizer import SGD, Adam, OptimWrapper

    from unvanish.integrations.fastai import FastaiWatch

WRAPPED = partial(OptimWrapper, opt=torch.optim.AdamW)


class Losses(Callback):
    def __init__(self, raises: int) -> None:
        super().__init__()
        self.values: list[float] = []
        self.raises = raises

    def after_batch(self) -> None:
        self.values.append(float(self.learn.loss))
        if len(self.values) == self.raises:
            raise ValueError("the user's own")


def fit(model: nn.Module, data: Any, watch: Any = None, kind: Any = Adam, **options: Any) -> Any:
    rows = list(zip(*map(torch.from_numpy, data), strict=True))
    loaders = DataLoaders(DataLoader(rows, bs=16, shuffle=False), DataLoader([], bs=16))
    losses = Losses(options.get("raises", -1))
    learn = Learner(loaders, model, loss_func=nn.MSELoss(), opt_func=kind, cbs=[losses])
    callbacks = [*options.get("cbs", ()), *([watch] if watch is not None else [])]
    with learn.no_bar(), learn.no_logging():
        learn._do_epoch_validate = lambda *a, **k: None
        learn.fit(2, options.get("lr", 1e-3), cbs=callbacks)
    return losses.values


@pytest.mark.parametrize(
    ("kind", "callbacks", "steps"),
    [
        (Adam, [], 32),
        (WRAPPED, [], 32),
        (SGD, [partial(GradientClip, 0.3)], 32),
        (Adam, [partial(GradientAccumulation, 64)], 8),
    ],
)
def test_no_bit_changes(draw, tower, kind, callbacks, steps) -> None:
    plain = fit(tower(), draw(), kind=kind, cbs=[make() for make in callbacks])
    watch = FastaiWatch(on_finding="silent")
    watched = fit(tower(), draw(), watch, kind=kind, cbs=[make() for make in callbacks])
    assert watched == plain
    assert (watch.watch.steps, watch.watch.findings, watch.watch.closed) == (steps, [], True)


def test_planted_faults_are_named(draw, tower) -> None:
    watch = FastaiWatch(on_finding="silent", every=5)
    fit(tower(nn.Sigmoid, 10), draw(), watch)
    assert watch.watch.findings[0].code == "ACT002"
    watch = FastaiWatch(on_finding="silent", stop=True)
    losses = fit(tower(), draw(), watch, lr=1.0)
    assert {f.code for f in watch.watch.findings} & {"OPT001", "OPT008"} and len(losses) < 32


@pytest.mark.parametrize("kind", [Adam, WRAPPED])
def test_a_batch_of_nan_is_survived(draw, tower, kind) -> None:
    watch = FastaiWatch(on_finding="guard")
    fit(model := tower(), draw(100), watch, kind=kind)
    assert "NUM001" in [f.code for f in watch.watch.findings]
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_it_ends_with_the_callback_after_an_exception(draw, tower) -> None:
    watch = FastaiWatch(on_finding="silent")
    with pytest.raises(ValueError, match="own"):
        fit(tower(), draw(), watch, raises=5)
    seen = watch.watch
    del watch
    gc.collect()
    assert seen.closed and seen.steps == 5


def test_findings_are_printed_once_and_numbers_are_in_the_recorder(draw, tower, capsys, tmp_path) -> None:
    rows = list(zip(*map(torch.from_numpy, draw()), strict=True))
    loaders = DataLoaders(DataLoader(rows, bs=16, shuffle=False), DataLoader(rows[:32], bs=16))
    model, metric = tower(nn.Sigmoid, 10), AccumMetric(mse, flatten=True)
    learn = Learner(loaders, model, loss_func=nn.MSELoss(), opt_func=Adam, metrics=[metric], path=tmp_path)
    for bars in (True, False):
        watch, log = FastaiWatch(every=5), CSVLogger(f"{bars}.csv")
        if bars:
            learn.fit(2, 1e-3, cbs=[watch, log])
        else:
            with learn.no_bar():
                learn.fit(2, 1e-3, cbs=[log, watch])
        assert list(learn.metrics) == [metric]
        said = capsys.readouterr()
        assert said.out.count("error[ACT002]") == 1 and "ACT002" not in said.err
        head, *lines = (tmp_path / f"{bars}.csv").read_text().splitlines()
        names = head.split(",")
        assert names[1:6] == [
            "train_loss",
            "valid_loss",
            "mse",
            "unvanish/gradient_norm",
            "unvanish/warnings",
        ]
        assert len(lines) == 2 and float(lines[1].split(",")[4]) > 0 and float(lines[1].split(",")[5]) == 1
    assert [len(values) for values in learn.recorder.values] == [5, 5]
