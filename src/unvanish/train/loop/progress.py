"""What a training prints: a line an epoch, and below them rate, time left, loss and health.

Notable:
- It draws on Rich's own console, so findings of the watch are printed above it.
- It redraws at most twice a second, without a thread; without a terminal, only the lines appear.
- If the terminal is gone, or nobody reads the pipe any more, it falls silent and the training goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich import get_console
from rich.live import Live
from rich.text import Text

from unvanish.core.names import show_lines

EVERY = 0.5  # seconds
COLUMNS = (("epoch", 9), ("step", 8), ("train/loss", 11), ("val/loss", 11), ("fitness", 12), ("gradient", 10))


@dataclass
class Epoch:
    """An epoch in progress: its number of `epochs`, its batches, those `done` and those done `before`."""

    number: int = 0
    epochs: int = 0
    batches: int = 0
    before: int = 0
    done: int = 0
    samples: int = 0
    started: float = field(default_factory=time.perf_counter)

    def describe(self, now: float) -> list[str]:
        """Bar, samples a second, and the time left in the run."""
        seconds = now - self.started
        each = seconds / max(1, self.done - self.before)
        left = each * (self.batches - self.done + self.batches * (self.epochs - self.number - 1))
        share = self.done / max(1, self.batches)
        bar = "━" * round(20 * share) + " " * (20 - round(20 * share))
        return [
            f"{self.number + 1}/{self.epochs} {bar} {self.done}/{self.batches}",
            f"{self.samples / max(seconds, 1e-9):.3g} samples/s",
            f"{format_time(left)} left",
        ]


class Progress:
    """The lines of a run; a context manager. Nothing is printed if not `shown`."""

    def __init__(self, shown: bool, fitness: str) -> None:
        self.shown, self.fitness = shown, fitness
        self.console = get_console()
        self.live: Live | None = None
        self.last = time.perf_counter()  # when it was drawn
        self.current = Epoch()
        self.rate = 0.0  # samples a second, of the epoch's steps
        self.headed = False

    def __enter__(self) -> Progress:
        if self.shown and self.console.is_terminal:
            self.live = Live(Text(""), console=self.console, auto_refresh=False, transient=True)
            self.live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.live is not None:
            self._try(self.live.stop)

    def say(self, text: str) -> None:
        """Print a sentence above the progress."""
        text = show_lines(text)
        if self.shown:
            self._try(lambda: self.console.print(text, highlight=False, markup=False, soft_wrap=True))

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except (OSError, ValueError):
            self.shown, self.live = False, None

    def begin_epoch(self, number: int, epochs: int, batches: int, done: int = 0) -> None:
        """An epoch of `batches` batches starts, `done` of which were made before."""
        self.current = Epoch(number, epochs, batches, done, done)

    def step(self, loss: float, batches: int, samples: int, health: Callable[[], str]) -> None:
        """A step was made."""
        self.current.done += batches
        self.current.samples += samples
        if self.live is None:
            return
        now = time.perf_counter()
        if now - self.last >= EVERY:
            self.last = now
            words = [*self.current.describe(now), f"loss {loss:.4g}"]
            gradient = health()
            words += [f"gradient {gradient}"] if gradient else []
            live, line = self.live, Text("  ".join(words))
            self._try(lambda: live.update(line, refresh=True))

    def end_steps(self) -> None:
        """The steps of the epoch are done; validation follows."""
        self.rate = self.current.samples / max(time.perf_counter() - self.current.started, 1e-9)

    def print_row(self, row: Mapping[str, Any], health: str) -> None:
        """Print an epoch's line, the first under its header."""
        if not self.shown:
            return
        if not self.headed:
            names = [self.fitness if key == "fitness" else key for key, _ in COLUMNS]
            head = "".join(f"{n:>{self._width(k, w)}}" for n, (k, w) in zip(names, COLUMNS, strict=True))
            self.say(f"{head}   samples/s")
            self.headed = True
        self.say(self._cells(row) + f"{self.rate:>12.4g}" + (f"   {health}" if health else ""))

    def _cells(self, row: Mapping[str, Any]) -> str:
        named = {
            **row,
            "epoch": f"{row['epoch']}/{self.current.epochs}",
            "fitness": row.get(f"metrics/{self.fitness}", ""),
        }
        cells = []
        for key, width in COLUMNS:
            value = named.get(key, "")
            cells.append(f"{value:.4g}" if isinstance(value, float) else str(value))
            cells[-1] = f"{cells[-1]:>{self._width(key, width)}}"
        return "".join(cells)

    def _width(self, key: str, usual: int) -> int:
        """The width of a column; that of the fitness has room for its name."""
        return max(usual, len(self.fitness) + 2) if key == "fitness" else usual


def format_time(seconds: float) -> str:
    """Seconds as 2:05 or 1:02:05."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
