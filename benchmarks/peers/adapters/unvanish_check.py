"""unvanish's `check`: one call on the model, the batch, the loss and the optimizer, before any training."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Check(Adapter):
    """Warnings and errors count; its claims are codes, which must be the planted ones to be right."""

    TITLE = "unvanish check"
    IMPORTS = "unvanish"
    USED = "one call"

    def examine(self, trial: Trial, steps: int) -> list[Said]:
        import unvanish

        found = unvanish.check(trial.model, trial.batch, trial.loss, optimizer=trial.optimizer)
        return [tell(finding) for finding in found.at_least("warning")]


def tell(finding: Any) -> Said:
    """A finding in its own words."""
    return Said(f"{finding.code} {finding.cause}", finding.code, finding.paths)


ADAPTER = Check
