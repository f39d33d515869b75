"""Weights & Biases: `run.watch(model)` in offline mode: histograms of gradients, no verdict of its own."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.adapter import Adapter, quiet
from benchmarks.peers.cases import Trial


class WandbWatch(Adapter):
    """Its default: gradients, every 1,000th step; the loss logged at every step. It says nothing."""

    TITLE = "wandb.watch"
    REQUIRES = ("wandb==0.31.0",)
    SPEAKS = False
    IMPORTS = "wandb"
    run: Any = None

    def begin(self, trial: Trial) -> None:
        import wandb

        if WandbWatch.run is None:
            with quiet():
                settings = wandb.Settings(console="off", silent=True)
                WandbWatch.run = wandb.init(mode="offline", project="peers", settings=settings)
        self.model = trial.model
        WandbWatch.run.watch(self.model)

    def after_step(self, step: int, loss: float, trial: Trial) -> None:
        WandbWatch.run.log({"loss": loss})

    def end(self) -> None:
        if WandbWatch.run is not None:
            WandbWatch.run.unwatch()


ADAPTER = WandbWatch
