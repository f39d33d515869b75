"""What the steps of a watched training did to its weights, and what its optimizers hold.

Notable: an ordinary step pays for one weight in turn, and a look for all of them (`probes.live.turns`). On a
device only looks read weights, so that nothing is launched for the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.clinic.watch.modes import Modes
from unvanish.clinic.watch.steps import CurrentStep
from unvanish.clinic.watch.watched import Watched
from unvanish.core.run_facts import HoldingFacts, PlanFacts
from unvanish.probes.layers import name_parameters
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.leftover import Leftover
from unvanish.probes.live.turns import Turns
from unvanish.probes.planned import ADAPTIVE, read_number

DENSE, EACH = 64, 16  # steps of which every one reads a weight; then one in so many
NAMED = 12  # parameters that are named
WAITS = 64  # steps of others, before which an optimizer may begin
IDLE = 8  # steps in which nothing moves a parameter that nobody holds
RARELY = 256  # steps at most between two readings of what the optimizers hold
SAMPLE = 16  # elements of a parameter that nobody holds, to see whether anything moves it


@dataclass
class Deeds:
    """Reads weights around the optimizers' steps."""

    watched: Watched
    guard: WatchGuard
    turns: Turns = field(init=False)
    modes: Modes = field(init=False)
    _dense: bool = field(init=False)  # whether steps without a look read weights, too
    _leftovers: dict[int, Leftover] = field(default_factory=dict, init=False)  # by the optimizer's id
    _held: dict[int, list[Tensor]] = field(default_factory=dict, init=False)  # parameters, the same
    _ids: dict[int, set[int]] = field(default_factory=dict, init=False)  # of these
    _strangers: dict[str, tuple[int, Tensor, int]] = field(default_factory=dict, init=False)  # held by none
    _frozen: dict[int, dict[str, int]] = field(default_factory=dict, init=False)  # numbers by name
    next: int = field(default=0, init=False)  # steps made when it is read again what they hold
    holding: HoldingFacts | None = field(default=None, init=False)
    plan: PlanFacts | None = field(default=None, init=False)
    heard_error: bool = False  # whether a loss that was heard is one of torch's own, which no training raises

    def __post_init__(self) -> None:
        self._dense = self.watched.device.type == "cpu"
        self.modes = Modes(self.watched)
        self.turns = Turns([] if self.watched.parameters.sharded else self.watched.parameters.parameters)

    def begin(self, optimizer: Any, step: CurrentStep, looked: bool) -> None:
        """An optimizer is about to step."""
        if self.watched.parameters.sharded:
            return
        leftover = self._leftovers.get(id(optimizer))
        if leftover is None:
            leftover = self._add(optimizer)
        kept = leftover.begin()
        if kept == kept:
            step.kept = kept if step.kept != step.kept else max(kept, step.kept)
        if looked or step.made >= self.next:
            self.next = step.made + min(RARELY, max(IDLE, step.made // 4))
            self.modes.note(step.number)
            self._note_frozen(optimizer)
            self._note_holding(step.made)
            self._note_plan(optimizer)
        if looked or (self._dense and (step.made < DENSE or step.made % EACH == 0)):
            self.turns.begin(id(optimizer), self._ids[id(optimizer)], looked)

    def begin_turn(self, optimizer: Any) -> None:
        """An optimizer whose parameters are known is about to step: read one weight."""
        self.turns.begin(id(optimizer), self._ids[id(optimizer)], False)

    def end(self, optimizer: Any, step: CurrentStep) -> None:
        """An optimizer has stepped."""
        if self.watched.parameters.sharded:
            return
        if self.turns.reading:
            step.turn = self.turns.end()
        leftover = self._leftovers.get(id(optimizer))
        if leftover is not None:
            leftover.end(self._held[id(optimizer)])

    def follow(self, optimizer: Any) -> tuple[Leftover | None, list[Tensor]]:
        """What follows an optimizer's gradients from step to step, None before its first; its parameters."""
        return self._leftovers.get(id(optimizer)), self._held.get(id(optimizer), [])

    def may_ask(self) -> bool:
        """Whether a hook may hang on a parameter for a step."""
        return self.watched.alone and not self.watched.is_compiled()

    def _add(self, optimizer: Any) -> Leftover:
        leftover = self._leftovers[id(optimizer)] = Leftover(self.guard, self.may_ask)
        self.guard.hold_weakly(leftover)
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._held[id(optimizer)] = [p for p in self.watched.parameters.parameters if id(p) in own]
        self._ids[id(optimizer)] = own
        return leftover

    def _note_frozen(self, optimizer: Any) -> None:
        """Which parameters of this optimizer were trained and no longer require a gradient."""
        names, every = self.watched.parameters.names, self.watched.parameters.parameters
        own = set(map(id, self._held[id(optimizer)]))
        self._frozen[id(optimizer)] = {
            n: p.numel() for n, p in zip(names, every, strict=True) if id(p) in own and not p.requires_grad
        }

    def _note_holding(self, made: int) -> None:
        """Which parameters get a gradient, and no optimizer holds and nothing moves them."""
        held = {id(p) for o in self.watched.optimizers for group in o.param_groups for p in group["params"]}
        known = dict(zip(self.watched.parameters.names, self.watched.parameters.parameters, strict=True))
        model = [(n, p) for n, p in name_parameters(self.watched.inner).items() if p.requires_grad]
        self._note_late([n for n, p in model if n not in known and id(p) in held and p.grad is not None])
        ours = {id(p) for _, p in self.watched.inner.named_parameters()}
        spare = [
            tuple(p.shape)
            for o in self.watched.optimizers
            for group in o.param_groups
            for p in group["params"]
            if id(p) not in ours
        ]
        left, stale, share, total = [], [], 0, 0
        idle = self._find_idle() if made >= WAITS else {}
        strangers, self._strangers = self._strangers, {}
        for name, p in model:
            total += p.numel()
            if id(p) in held or p.grad is None:
                continue
            sample = _some(p)
            before = strangers.get(name, (0, sample, made))
            if before[0] != id(p) or not torch.equal(before[1], sample):
                before = id(p), sample, made
            self._strangers[name] = before
            if made - before[2] < IDLE:
                continue
            left.append(name)
            share += p.numel()
            if known.get(name, p) is not p or tuple(p.shape) in spare:
                stale.append(name)
        frozen = {n: k for found in self._frozen.values() for n, k in found.items()}
        parameters = self.watched.parameters.parameters
        trained = sum(p.numel() for p in parameters)
        self.holding = {
            "left": left[:NAMED],
            "trainable": len(model),
            "share": share / max(1, total),
            "stale": stale[:NAMED],
            "frozen": list(frozen)[:NAMED],
            "frozen_share": sum(frozen.values()) / max(1, trained),
            "given": sum(p.grad is not None for p in parameters),
            "idle": [name for name, p in model if id(p) in idle][:NAMED],
        }

    def _note_late(self, names: list[str]) -> None:
        """Say which parameters came to be trained since the watch was opened."""
        if names:
            some = ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")
            self.guard.note(
                f"trained since later, and not watched: {some}; where you unfreeze them, close the watch and "
                "open another one with the same run"
            )

    def _find_idle(self) -> dict[int, Tensor]:
        """Parameters with a gradient whose optimizers have not stepped, by their ids."""
        acting, idle = set[int](), dict[int, Tensor]()
        for optimizer in self.watched.optimizers:
            held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
            if id(optimizer) in self._leftovers:
                acting |= set(held)
            else:
                idle |= {i: p for i, p in held.items() if p.grad is not None}
        return {i: p for i, p in idle.items() if i not in acting}

    def _note_plan(self, optimizer: Any) -> None:
        """What the first optimizer plans to do with the weights."""
        if self.plan is not None and optimizer is not self.watched.references[0]():
            return
        weights, kind = self.turns.weights, type(optimizer)
        group = optimizer.param_groups[0]
        planned, rate = math.nan, group.get("lr", math.nan)
        if kind.__module__.startswith("torch.optim") and isinstance(rate, (int, float)):
            if kind.__name__ in ADAPTIVE:
                planned = float(rate)
            elif kind.__name__ == "SGD":
                planned = float(rate) * self.turns.find_usual()
        groups = [group for o in self.watched.optimizers for group in o.param_groups]
        decays = [
            read_number(g, "weight_decay") for g in groups if not isinstance(g.get("weight_decay"), Tensor)
        ]
        loss = self.watched.loss
        self.plan = {
            "decay": max(decays, default=0.0),
            "dtype": str(weights[0].dtype).removeprefix("torch.") if weights else "",
            "resolution": self.turns.find_resolution(),
            "planned": planned,
            "error": self.heard_error or type(loss).__module__ == "torch.nn.modules.loss",
            "averaged": isinstance(loss, nn.Module) and getattr(loss, "reduction", None) == "mean",
        }


def _some(p: Tensor) -> Tensor:
    flat = p.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE].clone()
