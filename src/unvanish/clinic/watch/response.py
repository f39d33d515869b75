"""What a watch does when it finds something: log, warn, raise, keep a snapshot, guard the steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unvanish.clinic.watch.errors import WatchError
from unvanish.clinic.watch.snapshots import Snapshots
from unvanish.core.caution import caution, summarize
from unvanish.core.diagnosis import Finding
from unvanish.core.plain import name_value
from unvanish.core.registry import suggest
from unvanish.probes.errors import CheckError
from unvanish.surgery.clipping import AdaptiveClip, Clipper, NonFiniteSkip, ZScoreClip

WAYS = ("log", "warn", "raise", "snapshot", "guard", "guard-agc", "silent")


@dataclass(frozen=True)
class Voice:
    """Another log than stderr, which "log" goes to: `write` takes a text and its severity."""

    write: Callable[[str, str], Any]


@dataclass(frozen=True)
class Response:
    """The chosen ways, the user's own functions, what keeps snapshots or guards the steps, and the log."""

    ways: frozenset[str]
    functions: tuple[Callable[[Finding], Any], ...] = ()
    snapshots: Snapshots | None = None
    clipper: Clipper | None = None
    voice: Voice | None = None

    @classmethod
    def of(cls, on_finding: Any, run: str | Path | None, rank: int = 0, *, sharded: bool = False) -> Response:
        """Read `on_finding`; CheckError names what it may be. `sharded`: no rank holds the whole gradient."""
        wanted = on_finding if isinstance(on_finding, (list, tuple, set, frozenset)) else [on_finding]
        functions = tuple(w for w in wanted if callable(w))
        voice = next((w for w in wanted if isinstance(w, Voice)), None)
        named = [w for w in wanted if not callable(w) and not isinstance(w, Voice)]
        for way in named:
            if not isinstance(way, str) or way not in WAYS:
                hint = suggest(way, WAYS) if isinstance(way, str) else ""
                given = f"on_finding is {name_value(way)}{hint}"
                raise CheckError(f"{given}; use {', '.join(WAYS)}, or a function of the finding")
        ways = frozenset(named)
        if "snapshot" in ways and run is None:
            raise CheckError("a snapshot needs a folder; give run=")
        snapshots = None
        if "snapshot" in ways and run is not None:
            snapshots = Snapshots(Path(run) / "snapshots", rank)
        return cls(ways, functions, snapshots, _clipper(ways, sharded), voice)

    def guard(self, optimizer: Any) -> None:
        """Leave a step with a non-finite gradient out, and clip outliers in the run's history."""
        if self.clipper is not None:
            self.clipper(optimizer)

    def respond(
        self,
        finding: Finding,
        model: nn.Module,
        step: int,
        loss: Any,
        *,
        own: bool = True,
        told: bool = True,
        raises: bool = True,
    ) -> None:
        """Do what was asked for with a new finding; the exception of "raise" comes last.

        `own`: it is of this process, whose batch a snapshot holds. `told`: here, not on another rank.
        `raises`: here and now.
        """
        path = (
            self.snapshots.write(finding, model, step, loss) if self.snapshots is not None and own else None
        )
        text = describe(finding, step, path)
        if "log" in self.ways and told:
            self._log(text, finding.severity)
        if "warn" in self.ways and told:
            caution(text)
        self._call(finding)
        if "raise" in self.ways and raises and finding.severity != "note":
            raise WatchError(text, finding)

    def say(self, text: str) -> None:
        """Say what is no finding, as was asked for."""
        if "log" in self.ways:
            self._log(text, "warning")
        if "warn" in self.ways:
            caution(text)

    def _log(self, text: str, severity: str) -> None:
        """Write into the log; to stderr if there is no other, or if it fails."""
        if self.voice is not None:
            try:
                with torch._C._EnableTorchFunction():
                    self.voice.write(text, severity)
                return
            except Exception as error:
                text = f"{text}\n  (the library's log failed: {summarize(error)})"
        write_to_stderr(text)

    def _call(self, finding: Finding) -> None:
        """Call the user's functions; one that fails is a warning, but WatchError passes and ends the run."""
        for function in self.functions:
            try:
                with torch._C._EnableTorchFunction():
                    function(finding)
            except WatchError:
                raise
            except Exception as error:
                name = getattr(function, "__qualname__", type(function).__name__)
                caution(
                    f"unvanish: {name}, which on_finding named, failed with {type(error).__name__}: {error} "
                    f"(on {finding.code}); the training goes on. To end it, raise WatchError there"
                )


def _clipper(ways: frozenset[str], sharded: bool) -> Clipper | None:
    if sharded and not ways.isdisjoint({"guard", "guard-agc"}):
        return NonFiniteSkip()
    if "guard-agc" in ways:
        return AdaptiveClip(0.01)
    return ZScoreClip(2.5, 0.97, 25) if "guard" in ways else None


def describe(finding: Finding, step: int, snapshot: Path | None = None) -> str:
    """A finding in two or three lines."""
    lines = [f"unvanish: {finding.severity}[{finding.code}] {finding.name} at step {step}: {finding.cause}"]
    if finding.remedies:
        lines.append(f"  remedy: {finding.remedies[0].cure}: {finding.remedies[0].why}")
    if snapshot is not None:
        lines.append(f"  replay it: unvanish check MODEL --snapshot {snapshot}")
    return "\n".join(lines)


def write_to_stderr(text: str) -> None:
    """Write a line without tearing a progress bar of tqdm or Rich that is on the screen.

    Neither library has a public way to ask whether one is.
    """
    bars = sys.modules.get("tqdm")
    if bars is not None and getattr(bars.tqdm, "_instances", None):
        bars.tqdm.write(text, file=sys.stderr)
        return
    rich = sys.modules.get("rich")
    console = rich.get_console() if rich is not None else None
    if console is not None and getattr(console, "_live_stack", None):
        console.print(text, markup=False, highlight=False)
        return
    print(text, file=sys.stderr, flush=True)
