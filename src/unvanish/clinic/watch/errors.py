"""What a watch with `on_finding="raise"` raises."""

from __future__ import annotations

from unvanish.core.diagnosis import Finding


class WatchError(Exception):
    """A finding in a run whose watch was asked to raise; `finding` holds it."""

    def __init__(self, text: str, finding: Finding) -> None:
        super().__init__(text)
        self.finding = finding
