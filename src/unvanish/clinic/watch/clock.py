"""The clock of a watched training: how much of a step's time is the watch's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter


@dataclass(slots=True)
class StepClock:
    """Times the present step, and what the watch does in it."""

    began: float = field(default_factory=perf_counter)  # the watch's present piece of work
    last: float = field(default_factory=perf_counter)  # the end of the last step
    ours: float = 0.0  # seconds of this step that the watch took so far

    def start(self) -> None:
        """The watch begins to work."""
        self.began = perf_counter()

    def stop(self) -> None:
        """The watch hands back to the loop."""
        self.ours += perf_counter() - self.began

    def end_step(self) -> tuple[float, float]:
        """Seconds of ours and of the whole step, which ends now; our time from here on is the next step's."""
        now = perf_counter()
        ours, seconds = self.ours + now - self.began, now - self.last
        self.ours, self.began, self.last = 0.0, now, now
        return ours, seconds
