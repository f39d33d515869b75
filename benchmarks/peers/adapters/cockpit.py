"""Cockpit: its economy configuration around every backward of a model extended by BackPACK; no verdict."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial


class CockpitInstruments(Adapter):
    """For what it supports: a sequential model and a loss module with a mean. It draws; it does not judge."""

    TITLE = "Cockpit"
    REQUIRES = ("cockpit-for-pytorch==1.0.2", "setuptools<81")  # it asks pkg_resources for its version
    SPEAKS = False
    IMPORTS = "cockpit"

    def begin(self, trial: Trial) -> None:
        from backpack import extend
        from cockpit import Cockpit
        from cockpit.utils.configuration import configuration

        if not isinstance(trial.loss, nn.CrossEntropyLoss | nn.MSELoss) or trial.loss.reduction != "mean":
            raise NotImplementedError("needs losses of single samples from torch's own loss module")
        self.each = type(trial.loss)(reduction="none")
        trial.model, trial.loss = extend(trial.model, use_converter=True), extend(trial.loss)
        own = [p for p in trial.model.parameters() if p.requires_grad]
        self.tool: Any = Cockpit(own, quantities=configuration("economy"))

    def one_step(self, step: int, trial: Trial) -> float:
        x, y = trial.batch
        trial.optimizer.zero_grad()
        output = trial.model(x)
        loss, each = trial.loss(output, y), self.each(output, y)
        more = {
            "batch_size": len(y),
            "individual_losses": each.reshape(len(y), -1).mean(1),
            "loss": loss,
            "optimizer": trial.optimizer,
        }
        with self.tool(step, info=more):
            self.backward(step, loss, trial)
        trial.optimizer.step()
        return float(loss.detach())

    def backward(self, step: int, loss: Tensor, trial: Trial) -> None:
        loss.backward(create_graph=self.tool.create_graph(step))  # type: ignore[no-untyped-call]


ADAPTER = CockpitInstruments
