"""The model as it was handed in, and copies of it under treatment."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from unvanish.clinic.check import check
from unvanish.clinic.prescription import operate
from unvanish.core import depth
from unvanish.core.diagnosis import Diagnosis, Remedy, at_least
from unvanish.core.ledger import DECADE
from unvanish.cures import cures
from unvanish.surgery.receipt import Receipt, SurgeryError
from unvanish.surgery.surgery import Surgery


@dataclass(frozen=True)
class Patient:
    """A copy under treatment: the model, its optimizer and loss, what was done, and how it is."""

    model: nn.Module
    optimizer: Any
    loss: Any
    done: tuple[Remedy, ...]
    receipt: Receipt
    diagnosis: Diagnosis

    @property
    def cures(self) -> frozenset[str]:
        """The names of the cures that were applied."""
        return frozenset(remedy.cure for remedy in self.done)

    @property
    def burden(self) -> tuple[int, float]:
        """What is wrong: errors count ten times a warning; then how far the total is from 0 decades."""
        found = at_least(self.diagnosis.walk(), "warning")
        weight = sum(10 if f.severity == "error" else 1 for f in found)
        total = read_total(self.diagnosis)
        return weight, abs(total) if not math.isnan(total) else 0.0

    def is_better_than(self, other: Patient) -> bool:
        """Whether this patient is clearly better off: less is wrong, or the total is nearer to 0."""
        (a, x), (b, y) = self.burden, other.burden
        return a < b or (a == b and x < 0.8 * y - 0.1)


@dataclass(frozen=True)
class Admission:
    """The untreated model with its batch, as the user handed them in, and its diagnosis."""

    model: nn.Module
    optimizer: Any
    loss: Any
    batch: Any
    diagnosis: Diagnosis
    seed: int  # of cures that draw weights

    def copy(self) -> Patient:
        """An untreated copy; SurgeryError if the model cannot be copied."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model, optimizer = copy.deepcopy((self.model, self.optimizer))
            except Exception as error:
                why = str(error).partition(". ")[0].partition("\n")[0]
                raise SurgeryError(
                    f"the model cannot be copied ({type(error).__name__}: {why}), and cures are tried on a "
                    "copy; make copy.deepcopy(model) work: it must hold no lock, open file, or tensor "
                    "computed from parameters, as the old torch.nn.utils.weight_norm does"
                ) from error
        return Patient(model, optimizer, self.loss, (), Receipt(), self.diagnosis)

    def treat(self, done: Iterable[Remedy], start: Diagnosis, remedies: Iterable[Remedy]) -> Patient | None:
        """A fresh copy with everything in `done`, then `remedies`; None if a remedy finds nothing to do.

        Each of `remedies` is planned on the copy as it then is, the first one on the diagnosis `start`.
        """
        fresh = self.copy()
        surgery = Surgery(
            fresh.model, batch=self.batch, loss=self.loss, optimizer=fresh.optimizer, seed=self.seed
        )
        applied = list(done)
        for remedy in applied:
            operate(surgery, remedy)
        diagnosis = start
        for place, remedy in enumerate(remedies):
            if place:
                diagnosis = self._examine(surgery)
            planned = cures()[remedy.cure].plan(diagnosis.trace, remedy)
            if not planned:
                return None
            for concrete in planned:
                operate(surgery, concrete)
            applied += planned
        receipt = surgery.finish()
        diagnosis = self._examine(surgery)
        return Patient(fresh.model, fresh.optimizer, surgery.loss, tuple(applied), receipt, diagnosis)

    def _examine(self, surgery: Surgery) -> Diagnosis:
        return check(
            surgery.model,
            self.batch,
            surgery.loss,
            optimizer=surgery.optimizer,
            confirm=False,
            theory=False,
            name=self.diagnosis.subject,
        )


def read_total(diagnosis: Diagnosis) -> float:
    """Decades from the last hidden layer to the first; NaN without a depth axis."""
    reading = depth.read(diagnosis.trace) if diagnosis.trace.values.size else None
    return reading.ratio / DECADE if reading is not None else math.nan
