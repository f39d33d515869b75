"""Snapshots of bad steps: the batch, the weights and the random state, so that a step can be replayed.

Notable: a snapshot is tensors and plain values only, so it loads with `weights_only`; it holds the weights
the bad gradient was made with, the batch, and the random state from before the forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.caution import caution
from unvanish.core.diagnosis import Finding
from unvanish.probes.live.compiled import has_compiled_parts, is_compiled
from unvanish.probes.live.guard import WatchEntry, WatchGuard
from unvanish.store.files import write_whole

MOST = 5  # snapshots of a run


@dataclass(frozen=True)
class RememberedCall:
    """The arguments of a forward, no copies, and the random state from before it."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    cpu: Tensor
    cuda: list[Tensor]


@dataclass
class Snapshots:
    """The snapshots of a run, and what the next one would hold."""

    folder: Path
    rank: int = 0  # of this process among those that train together
    paths: list[Path] = field(default_factory=list)  # those written so far
    call: RememberedCall | None = None  # the last forward in training
    target: Any = None  # the loss's second argument

    def attach(self, guard: WatchGuard, model: nn.Module, loss: Any) -> None:
        """Remember every call of a model, and of a loss if it is a module."""
        if has_compiled_parts(model):
            guard.note("no snapshots are kept: the model, or a part of it, is compiled")
            return
        guard.hang(model.register_forward_pre_hook, WatchEntry(guard, self._remember), with_kwargs=True)
        if isinstance(loss, nn.Module) and not is_compiled(loss):
            guard.hang(loss.register_forward_pre_hook, WatchEntry(guard, self._remember_target))

    def _remember(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if module.training and torch.is_grad_enabled():
            ready = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
            cuda = torch.cuda.get_rng_state_all() if ready else []
            self.call = RememberedCall(args, kwargs, torch.get_rng_state(), cuda)

    def _remember_target(self, module: nn.Module, args: Any) -> None:
        self.target = args[1] if len(args) == 2 else None

    def write(self, finding: Finding, model: nn.Module, step: int, loss: Any) -> Path | None:
        """Write the present step, whole or not at all; None without a call, on failure, or after `MOST`."""
        if self.call is None or len(self.paths) >= MOST:
            return None
        by = f"-rank-{self.rank}" if self.rank else ""
        path = self.folder / f"step-{step}-{finding.code}{by}.pt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with write_whole(path, "snapshot") as partial:
                torch.save(self._content(finding, model, step, loss), partial)
        except Exception as error:
            caution(f"unvanish: the snapshot {path} cannot be written: {error}")
            return None
        self.paths.append(path)
        return path

    def _content(self, finding: Finding, model: nn.Module, step: int, loss: Any) -> dict[str, Any]:
        assert self.call is not None
        return {
            "step": step,
            "code": finding.code,
            "args": _plain(self.call.args),
            "kwargs": _plain(self.call.kwargs),
            "target": _plain(self.target),
            "loss": type(loss).__name__ if isinstance(loss, nn.Module) else None,
            "weights": {k: v.detach().cpu() for k, v in model.state_dict().items() if isinstance(v, Tensor)},
            "random": {"cpu": self.call.cpu, "cuda": self.call.cuda},
        }


def _plain(value: Any) -> Any:
    """Tensors detached and on the CPU, in lists, tuples and dicts; anything else becomes None."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value)
    if isinstance(value, (list, tuple)):  # a named tuple's class would not load with `weights_only`
        return [_plain(v) for v in value]
    return None
