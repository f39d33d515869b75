"""Fused recurrent layers of a watched step: a few of their sequences, followed through time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probes.live.guard import WatchEntry, WatchGuard
from unvanish.probes.live.readable import is_readable
from unvanish.probes.recurrent.profile import Profile
from unvanish.probes.recurrent.replay import replay

SEQUENCES = 2  # of a batch whose time profile is followed


@dataclass
class SequencePass:
    """One call of a fused recurrent layer: a few sequences of it, and the gradients they get."""

    module: nn.RNNBase
    x: Tensor
    hx: Any
    gradients: dict[str, Tensor | None] = field(default_factory=dict)

    def keep(self, name: str, dim: int, gradient: Tensor) -> None:
        """Keep a few sequences of a gradient under a name."""
        if is_readable(gradient):
            self.gradients[name] = pick_sequences(gradient, dim).double()

    def replay(self) -> list[Profile]:
        """The profile of each layer and direction; empty if no gradient came."""
        states: Any = [g for k, g in self.gradients.items() if k.startswith("state")]
        if all(g is None for g in self.gradients.values()):
            return []
        if isinstance(self.module, nn.LSTM) and any(s is not None for s in states):
            like = next(s for s in states if s is not None)
            states = tuple(torch.zeros_like(like) if s is None else s for s in states)
        else:
            states = next((s for s in states if s is not None), None)
        return replay(self.module, (self.x, self.hx), self.gradients.get("output"), states, probes=1)


@dataclass
class Sequences:
    """The recurrent layers of one look, by path, if it is a look that follows them."""

    wanted: bool = False
    passes: dict[str, SequencePass] = field(default_factory=dict)

    def begin(self, wanted: bool) -> None:
        """A look begins; `wanted`: follow the recurrent layers in it."""
        self.wanted, self.passes = wanted, {}

    def follow(self, guard: WatchGuard, module: Any, path: str, args: Any, output: Any) -> None:
        """Keep a few sequences of a layer's first call, and their gradients when they come."""
        x, hx = args[0] if args else None, args[1] if len(args) > 1 else None
        if path in self.passes or not isinstance(x, Tensor) or x.ndim != 3 or not is_readable(x):
            return
        along = 0 if module.batch_first else 1
        turn = self.passes[path] = SequencePass(module, pick_sequences(x, along), pick_sequences(hx, 1))
        states = output[1] if isinstance(output[1], tuple) else (output[1],)
        for name, made, dim in (("output", output[0], along), *(("state", s, 1) for s in states)):
            if made.requires_grad:
                key = name if name == "output" else f"{name}{len(turn.gradients)}"
                turn.gradients[key] = None
                made.register_hook(WatchEntry(guard, turn.keep, key, dim))

    def take_profiles(self) -> list[tuple[str, str, Profile]]:
        """(name, kind, profile) of every layer that was followed, once; before the weights move."""
        found = []
        for path, turn in self.passes.items():
            profiles = turn.replay()
            for p in profiles:
                name = f"{path}.l{p.layer}{'_reverse' if p.reverse else ''}" if len(profiles) > 1 else path
                found.append((name or "(model)", type(turn.module).__name__.lower(), p))
        self.begin(wanted=False)
        return found


def pick_sequences(value: Any, dim: int) -> Any:
    """A few sequences of a tensor, or of the tensors of a tuple."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(pick_sequences(v, dim) for v in value)
    return value.detach().narrow(dim, 0, min(SEQUENCES, value.shape[dim])).clone()
