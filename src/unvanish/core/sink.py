"""What takes the record of a watched training besides its run folder: a tracker, a file, a metrics system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unvanish.core.diagnosis import Finding

PREFIX = "unvanish"  # of every name in a tracker, before a slash or a dot


@dataclass(frozen=True)
class SinkRow:
    """One step: its number, the time of day in seconds, and what was measured of it, by name.

    `loss`, `gradient_norm` (as the optimizer sees it), `gradient_norm_before_clipping`, `lr` (the largest of
    all groups); `finite`, `skipped`, `clipped` are 1 or 0. What was not measured is left out; a loss or a
    norm that is not finite is there.
    """

    step: int
    time: float
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def finite_values(self) -> dict[str, float]:
        """Those that every tracker can show; NaN is unequal to itself, and inf minus inf is NaN."""
        return {name: value for name, value in self.values.items() if value - value == 0.0}


class Sink:
    """Takes what a watch records; whatever a tracker cannot show, its sink leaves as it is here.

    `open` is called once by the training's thread, when the watch is opened; all else by a thread of the
    sink's own, one call at a time, `close` last, however the training ends. Nothing else waits for it. A
    method that raises is the last one that is called: the sink is left out, with one warning.
    """

    rate: float | None = (
        100.0  # rows a second at most, the others are left out; None: every row, however many
    )

    def open(self, about: Mapping[str, Any]) -> None:
        """The watch is opened: `name`, `model` (its class), `folder` (of the run, or None), `prefix`.

        `prefix` is what names in a tracker begin with: "unvanish", or "unvanish/NAME" of a named watch.
        """

    def steps(self, rows: Sequence[SinkRow]) -> None:
        """Steps that were made, in order."""

    def look(self, row: SinkRow) -> None:
        """What a look saw of the layers: `flow_decades`, `gradient/LAYER`, `update/LAYER`."""

    def finding(self, step: int, finding: Finding) -> None:
        """Something was found, first at this step; again if a note has become a warning."""

    def picture(self, step: int, name: str, png: bytes) -> None:
        """A picture of the whole run, at its end."""

    def close(self) -> None:
        """Nothing comes any more."""

    @property
    def draws(self) -> bool:
        """Whether it takes pictures, which cost a second to make."""
        return type(self).picture is not Sink.picture
