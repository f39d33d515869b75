"""The outcome of a cure: its proof, the attempts, the treated copy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from unvanish.core.diagnosis import Diagnosis, Remedy
from unvanish.core.shown import Shown

Outcome = Literal["better", "no effect", "worse"]


@dataclass(frozen=True)
class Proof:
    """A model before and after: all rules again, the total again, and a short training of both from equal
    seeds.

    `total_*`: decades from the loss to the input, NaN without a depth axis. `losses_*`: the training loss at
    every step, of the same batch, optimizer and seed; `comparable` is False where the cure changed the loss
    itself. `behind`: the median, over the trials, of how far the treated model was behind in the loss
    reached, in units of the first loss; negative where it was ahead.
    """

    codes_before: tuple[str, ...]
    codes_after: tuple[str, ...]
    total_before: float = math.nan
    total_after: float = math.nan
    losses_before: tuple[float, ...] = ()
    losses_after: tuple[float, ...] = ()
    comparable: bool = True
    training: Outcome = "no effect"
    behind: float = 0.0

    @property
    def new(self) -> tuple[str, ...]:
        """Codes that are found now and were not before."""
        return tuple(code for code in self.codes_after if code not in self.codes_before)

    @property
    def healed(self) -> bool:
        """Whether nothing at or above a warning is found any more."""
        return not self.codes_after

    @property
    def towards_zero(self) -> bool:
        """Whether the total moved towards 0 decades, or is within the 3 nats that always train."""
        here, there = abs(self.total_after), abs(self.total_before)
        if "NUM001" in self.codes_before:  # a gradient that is not finite has no total
            return True
        return math.isnan(there) or math.isnan(here) or here <= max(1.31, there)

    @property
    def outcome(self) -> Outcome:
        """The verdict: better only where rules, total and training agree."""
        if self.training == "worse" or self.new or not self.towards_zero:
            return "worse"
        fewer = len(self.codes_after) < len(self.codes_before)
        return "better" if fewer or self.training == "better" else "no effect"


@dataclass(frozen=True)
class Attempt:
    """One candidate that was tried on a copy: the cures' names, what became of it."""

    cures: tuple[str, ...]
    result: str
    seconds: float = math.nan


@dataclass(frozen=True)
class Cured(Shown):
    """The outcome of `cure`: a cured copy, the prescription, and the proof.

    `model` is a copy with the prescription applied (a plain copy where nothing helped), `loss` the loss to
    train it with. `proof` is None where nothing was wrong or nothing helped; `reason` says so in a sentence.
    """

    model: Any
    loss: Any
    prescription: Any
    before: Diagnosis
    after: Diagnosis
    proof: Proof | None = None
    receipt: Any = None
    attempts: tuple[Attempt, ...] = ()
    advice: tuple[Remedy, ...] = ()
    reason: str = ""
    seconds: float = math.nan

    @property
    def success(self) -> bool:
        """Whether the model is healthy now, and proven not to be worse (True where nothing was wrong)."""
        return self.after.healthy and (self.proof is None or self.proof.outcome == "better")
