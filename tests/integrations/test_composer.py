"""Composer's real Trainer: no bit changes with and without microbatches, planted faults are named."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore", "error:unvanish")

with warnings.catch_warnings():  # Composer and what it imports
    warnings.simplefilter("ignore")
    pytest.importorskip("composer")
    from composer import Callback, ComposerModel, Trainer
    from composer.loggers import InMemoryLogger

    from unvanish.integrations.composer import ComposerWatch


class Regression(ComposerModel):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Any) -> Any:
        return self.net(batch[0])

    def loss(self, outputs: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        return nn.functional.mse_loss(outputs, batch[1])


class Losses(Callback):
    def __init__(self, raises: int) -> None:
        self.values: list[float] = []
        self.raises = raises

    def batch_end(self, state: Any, logger: Any) -> None:
        self.values.append(float(state.loss))
        if len(self.values) == self.raises:
            raise ValueError("the user's own")


def fit(net: nn.Module, data: Any, watch: Any = None, **options: Any) -> Any:
    model = Regression(net)
    optimizer = options.get("kind", torch.optim.Adam)(model.parameters(), lr=options.get("lr", 1e-3))
    rows = torch.utils.data.TensorDataset(*map(torch.from_numpy, data))
    losses, log = Losses(options.get("raises", -1)), InMemoryLogger()
    trainer = Trainer(
        model=model,
        train_dataloader=torch.utils.data.DataLoader(rows, 16),
        optimizers=optimizer,
        max_duration="2ep",
        callbacks=[losses] if watch is None else [losses, watch],
        progress_bar=False,
        device="cpu",
        device_train_microbatch_size=options.get("micro"),
        loggers=[log],
    )
    try:
        trainer.fit()
    finally:
        trainer.close()
    return losses.values, log


@pytest.mark.parametrize("micro", [None, 4])
def test_no_bit_changes(draw, tower, micro) -> None:
    plain, _ = fit(tower(), draw(), micro=micro)
    watch = ComposerWatch(on_finding="silent")
    watched, log = fit(tower(), draw(), watch, micro=micro)
    assert watched == plain
    assert (watch.watch.steps, watch.watch.findings, watch.watch.closed) == (32, [], True)
    assert len(log.data["unvanish/gradient_norm"]) == 32


def test_planted_faults_are_named(draw, tower) -> None:
    watch = ComposerWatch(on_finding="silent", every=5)
    fit(tower(nn.Sigmoid, 10), draw(), watch)
    assert watch.watch.findings[0].code == "ACT002"
    watch = ComposerWatch(on_finding="silent", stop=True)
    losses, _ = fit(tower(), draw(), watch, lr=1.0)
    assert {f.code for f in watch.watch.findings} & {"OPT001", "OPT008"} and len(losses) < 32


def test_a_batch_of_nan_is_survived(draw, tower) -> None:
    watch = ComposerWatch(on_finding="guard")
    fit(net := tower(), draw(100), watch)
    assert "NUM001" in [f.code for f in watch.watch.findings]
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


def test_it_ends_with_a_training_that_raises(draw, tower) -> None:
    watch = ComposerWatch(on_finding="silent")
    with pytest.raises(ValueError, match="own"):
        fit(tower(), draw(), watch, raises=5)
    assert watch.watch.closed and watch.watch.steps == 5


def test_findings_go_to_composer_s_loggers(draw, tower, hear, capsys) -> None:
    records = hear("composer")
    _, log = fit(tower(nn.Sigmoid, 10), draw(), ComposerWatch(every=5))
    told = [r for r in records if "ACT002" in r.getMessage()]
    assert [(r.levelname, r.name) for r in told] == [("ERROR", "composer.unvanish")]
    assert "ACT002" not in capsys.readouterr().err
    assert "ACT002" in str(log.tables["unvanish/findings"])
    assert log.data["unvanish/warnings"][-1][1] == 1
