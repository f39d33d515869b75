"""What a watch does when it finds something: log, warn, raise, keep a snapshot, guard the steps.

Notable: a snapshot is tensors and plain values only, so it loads with `weights_only`; it holds the weights
the bad gradient was made with, the batch, and the random state from before the forward.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.clinic.watch.errors import WatchError
from unvanish.core.diagnosis import Finding
from unvanish.core.registry import suggest
from unvanish.probes.errors import CheckError
from unvanish.surgery.clipping import AdaptiveClip, Clipper, ZScoreClip

WAYS = ("log", "warn", "raise", "snapshot", "guard", "guard-agc", "silent")
MOST = 5  # snapshots of a run


@dataclass
class Response:
    """The chosen ways, and what they need to remember."""

    ways: frozenset[str]
    functions: tuple[Callable[[Finding], Any], ...] = ()
    folder: Path | None = None
    clipper: Clipper | None = None
    taken: list[Path] = field(default_factory=list)
    _call: tuple[Any, Any, Any, bool] | None = None
    _target: Any = None

    @classmethod
    def of(cls, on_finding: Any, run: str | Path | None) -> Response:
        """Read `on_finding`; CheckError names what it may be."""
        wanted = on_finding if isinstance(on_finding, (list, tuple, set, frozenset)) else [on_finding]
        functions = tuple(w for w in wanted if callable(w))
        ways = frozenset(w for w in wanted if not callable(w))
        for way in ways:
            if way not in WAYS:
                hint = suggest(str(way), WAYS)
                raise CheckError(
                    f"on_finding is {way!r}{hint}; use {', '.join(WAYS)}, or a function of the finding"
                )
        if "snapshot" in ways and run is None:
            raise CheckError("a snapshot needs a folder to lie in; give run=")
        folder = Path(run) / "snapshots" if run is not None else None
        clipper = AdaptiveClip(0.01) if "guard-agc" in ways else ZScoreClip(2.5, 0.97, 25)
        return cls(ways, functions, folder, clipper if ways & {"guard", "guard-agc"} else None)

    @property
    def snapshot(self) -> bool:
        """Whether batches must be remembered."""
        return "snapshot" in self.ways

    def guard(self, optimizer: Any) -> None:
        """Skip a step with a non-finite gradient, and clip what stands out of the run's own history."""
        if self.clipper is not None:
            self.clipper(optimizer)

    def remember(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """The forward begins: its arguments and the random state, no copies."""
        if module.training and torch.is_grad_enabled():
            ready = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
            cuda = torch.cuda.get_rng_state_all() if ready else []
            self._call = (args, kwargs, (torch.get_rng_state(), cuda), True)

    def remember_loss(self, module: nn.Module, args: Any) -> None:
        """The loss begins: what it is given beside the output."""
        self._target = args[1] if len(args) == 2 else None

    def write_snapshot(self, model: nn.Module, finding: Finding, step: int, loss: Any) -> Path | None:
        """Write the batch, weights and random state of a step, whole or not at all, else None."""
        if self.folder is None or self._call is None or len(self.taken) >= MOST:
            return None
        args, kwargs, (cpu, cuda), _ = self._call
        target = self.folder / f"step-{step}-{finding.code}.pt"
        content = {
            "step": step,
            "code": finding.code,
            "args": _plain(args),
            "kwargs": _plain(kwargs),
            "target": _plain(self._target),
            "loss": type(loss).__name__ if isinstance(loss, nn.Module) else None,
            "weights": {k: v.detach().cpu() for k, v in model.state_dict().items() if isinstance(v, Tensor)},
            "random": {"cpu": cpu, "cuda": cuda},
        }
        partial = target.with_suffix(".partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save(content, partial)
            partial.replace(target)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            warnings.warn(
                f"unvanish: the snapshot {target} cannot be written: {error}", RuntimeWarning, stacklevel=2
            )
            return None
        self.taken.append(target)
        return target


def respond(response: Response, finding: Finding, model: nn.Module, step: int, loss: Any) -> None:
    """Do what was asked for with a new finding; the exception of "raise" comes last."""
    path = response.write_snapshot(model, finding, step, loss) if response.snapshot else None
    text = said(finding, step, path)
    if "log" in response.ways:
        tell(text)
    if "warn" in response.ways:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    for function in response.functions:
        function(finding)
    if "raise" in response.ways and finding.severity != "note":
        raise WatchError(text, finding)


def said(finding: Finding, step: int, snapshot: Path | None = None) -> str:
    """A finding in two or three lines."""
    lines = [f"unvanish: {finding.severity}[{finding.code}] {finding.name} at step {step}: {finding.cause}"]
    if finding.remedies:
        lines.append(f"  remedy: {finding.remedies[0].cure}: {finding.remedies[0].why}")
    if snapshot is not None:
        lines.append(f"  replay it: unvanish check MODEL --snapshot {snapshot}")
    return "\n".join(lines)


def tell(text: str) -> None:
    """Write to standard error without tearing a progress bar that is drawn there."""
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


def _plain(value: Any) -> Any:
    """Tensors detached and on the CPU, in lists, tuples and dicts; what is something else becomes None."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return (
            type(value)(_plain(v) for v in value)
            if type(value) in (list, tuple)
            else [_plain(v) for v in value]
        )
    return None
