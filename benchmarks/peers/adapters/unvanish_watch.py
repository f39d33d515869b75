"""unvanish's `watch`: one line before the training; its findings count when the training is over."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.adapters.unvanish_check import tell
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Watch(Adapter):
    """Warnings and errors count; its claims are codes."""

    TITLE = "unvanish watch"
    IMPORTS = "unvanish"

    def begin(self, trial: Trial) -> None:
        import unvanish

        self.watch: Any = unvanish.watch(trial.model, trial.optimizer, run=None, on_finding="silent")

    def speak(self, trial: Trial) -> list[Said]:
        self.watch.close()
        loud = [f for f in self.watch.findings if f.severity != "note"]
        return [tell(finding) for finding in loud]

    def end(self) -> None:
        if hasattr(self, "watch"):
            self.watch.close()


ADAPTER = Watch
