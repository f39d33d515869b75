"""The outcome of a cure: its proof, the attempts, the treated copy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from unvanish.core.brief import Brief
from unvanish.core.diagnosis import Diagnosis, Remedy
from unvanish.core.shown import Shown

Outcome = Literal["better", "no effect", "worse"]


@dataclass(frozen=True, repr=False)
class Proof(Brief):
    """A model before and after: all rules again, the total again, and a short training of both from equal
    seeds.

    `total_*`: decades from the loss to the input, NaN without a depth axis. `losses_*`: the loss at every
    step, of the same samples, optimizer and seed, empty without a loss to train by; `unseen`: of how many
    samples that the training does not see, 0 if it is its own batch; `comparable` is False if the cure
    changed the loss itself. `behind`: the median, over the trials, of how far the treated model was behind in
    the loss reached, in units of the first loss; negative if it was ahead. `towards_zero`: whether the total
    moved towards 0 decades, or is small enough. `outcome`: the verdict, `clinic.proof` reaches it.
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
    towards_zero: bool = True
    outcome: Outcome = "no effect"
    unseen: int = 0
    outstripped: bool = False

    @property
    def new(self) -> tuple[str, ...]:
        """Codes that are found now and were not before."""
        return tuple(code for code in self.codes_after if code not in self.codes_before)

    @property
    def healed(self) -> bool:
        """Whether nothing at or above a warning is found any more."""
        return not self.codes_after


@dataclass(frozen=True, repr=False)
class Attempt(Brief):
    """One candidate that was tried on a copy: the cures' names, and the result."""

    cures: tuple[str, ...]
    result: str
    seconds: float = math.nan


@dataclass(frozen=True, repr=False)
class Cured(Shown):
    """The outcome of `cure`: a cured copy, the prescription, and the proof.

    `model` is a copy with the prescription applied (a plain copy if nothing helped), `loss` the loss to train
    it with. `proof` is None if nothing was wrong or nothing helped; `reason` says why it is no full cure.
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
        """Whether the model is healthy now, and proven not to be worse (True if nothing was wrong)."""
        return self.after.healthy and (self.proof is None or self.proof.outcome == "better")
