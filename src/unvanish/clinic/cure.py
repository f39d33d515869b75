"""`cure`: the smallest set of remedies that proves itself, found by trying them on copies.

Notable:
- Candidates come from the findings, in the rules' own order; each is made concrete for the network as it is
  when its turn comes, so a second remedy is planned on what the first one left.
- A candidate is judged by all rules again and by the total; what heals is then trained for a few steps beside
  the original, from the same seed. Whatever is worse in any of these is not returned.
- A trained model keeps its function: only `exact` remedies are tried there, unless the caller allows others.
"""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from unvanish.clinic.candidates import DEPTH, FOLLOWED, GENERAL, Candidate
from unvanish.clinic.check import check
from unvanish.clinic.patient import Patient, total_of
from unvanish.clinic.prescription import Prescription, fingerprint, operate
from unvanish.clinic.proof import BARELY, CLOSE, behind, judged, trained, training, undecided
from unvanish.core.cured import Attempt, Cured, Proof
from unvanish.core.diagnosis import SEVERITIES, Diagnosis, Finding, Remedy
from unvanish.cures import cures
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.intact import unwrap
from unvanish.surgery.surgery import Receipt, Surgery, SurgeryError

MOST = 4  # remedies
MARGINAL = 3  # proven treatments of which the best is taken, where training goes no better with any


def cure(
    model: Any,
    batch: Any,
    loss: Callable[..., Any] | None = None,
    *,
    optimizer: Any = None,
    allow: Iterable[str] | None = None,
    budget: float = 60.0,
    steps: int = 60,
    seed: int = 0,
    name: str | None = None,
) -> Cured:
    """Find the smallest set of remedies that heals the model on this batch, and prove it on a copy.

    The model itself is never changed; `cured.model` is a treated copy. `allow`: the kinds of remedies to try,
    "exact" and "retrain"; by default both on an untrained model, only "exact" on a trained one. `budget`:
    seconds after which the best so far is taken. `steps`: of the equal-seed training in the proof, by Adam on
    this batch. CheckError and ModelCrash as `check`; SurgeryError for a model that cannot be operated on
    (wrapped, compiled, scripted).
    """
    started = time.perf_counter()
    Surgery(model)  # refuses what must not be changed, before any work
    allowed = _allowed(allow, model, optimizer)
    before = check(model, batch, loss, optimizer=optimizer, theory=False, name=name)
    search = Search(model, batch, loss, optimizer, before, allowed, started + budget, steps, seed)
    found = search.run()
    return replace(found, seconds=time.perf_counter() - started)


def _allowed(allow: Iterable[str] | None, model: nn.Module, optimizer: Any) -> frozenset[str]:
    if allow is None:
        return frozenset({"exact"} if trained(model, optimizer) else {"exact", "retrain"})
    wanted = frozenset({allow} if isinstance(allow, str) else allow)
    unknown = wanted - {"exact", "retrain"}
    if unknown:
        raise CheckError(f"allow holds {', '.join(sorted(unknown))}; use 'exact', 'retrain' or both")
    return wanted | {"exact"}


class Search:
    """The search for a prescription; `run` returns the outcome."""

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        loss: Any,
        optimizer: Any,
        before: Diagnosis,
        allowed: frozenset[str],
        deadline: float,
        steps: int,
        seed: int,
    ) -> None:
        self.model, self.batch, self.loss, self.optimizer = unwrap(model), batch, loss, optimizer
        self.before, self.allowed, self.deadline = before, allowed, deadline
        self.steps, self.seed = steps, seed
        self.attempts: list[Attempt] = []
        self.rejected: set[frozenset[str]] = set()  # cures that healed together, but did not prove themselves
        self.losses: dict[int, tuple[float, ...]] = {}

    @property
    def late(self) -> bool:
        """Whether the budget is used up."""
        return time.perf_counter() > self.deadline

    def run(self) -> Cured:
        """Treat, prove, and report."""
        start = self._copy()
        if self.before.healthy:
            return self._outcome(start, None, "nothing is wrong on this batch, so nothing was changed")
        best = start
        while len(best.done) < MOST and not self.late:
            better = self._round(best)
            if better is None:
                break
            best, proof = better
            if proof is not None:
                return self._outcome(best, proof, "")
        return self._unhealed(best, start)

    def _unhealed(self, best: Patient, start: Patient) -> Cured:
        """What to say where no candidate heals: the best proven improvement, or nothing."""
        if best.done:
            proof = self._proof(best)
            if proof.outcome == "better" and proof.behind <= BARELY:
                left = ", ".join(best.diagnosis.codes())
                return self._outcome(
                    best, proof, f"better, but {left} is still found; nothing tried heals it"
                )
        return self._outcome(start, None, self._why_not())

    def _why_not(self) -> str:
        if self.late:
            return "the time ran out before anything proved itself; give it a larger budget"
        if self.attempts:
            return (
                f"none of the {len(self.attempts)} treatments tried healed the model without making it worse"
            )
        if "retrain" not in self.allowed:
            why = "the model looks trained, so " if trained(self.model, self.optimizer) else ""
            return (
                f"{why}only remedies that keep its function were considered, and none applies; "
                "allow 'retrain' to consider the others"
            )
        return "what was found has no remedy that can be applied; the findings say what a person can do"

    # -- one round

    def _round(self, patient: Patient) -> tuple[Patient, Proof | None] | None:
        """The first candidate that heals and trains at least as well, else the best that heals and falls
        barely behind, else the one that helps most, else None.
        """
        best: Patient | None = None
        marginal: list[tuple[Patient, Proof]] = []
        for candidate in self._candidates(patient):
            if self.late or len(marginal) == MARGINAL:
                break
            treated = self._try(patient, candidate)
            if treated is None:
                continue
            if treated.diagnosis.healthy:
                treated = self._pruned(treated)
                proof = self._proof(treated)
                self._note(candidate, patient, _told(proof))
                if proof.outcome == "better" and proof.behind <= BARELY:
                    return treated, proof
                if proof.outcome == "better":
                    marginal.append((treated, proof))
                else:
                    self.rejected.add(frozenset(r.cure for r in treated.done))
                continue
            self._note(candidate, patient, _left(treated, patient))
            if _helps(treated, best or patient):
                best = treated
        if marginal:
            return min(marginal, key=lambda found: found[1].behind)
        return None if best is None else (best, None)

    def _note(self, candidate: Candidate, patient: Patient, result: str) -> None:
        names = (*(r.cure for r in patient.done), *candidate.names)
        self.attempts.append(Attempt(tuple(dict.fromkeys(names)), result))

    def _candidates(self, patient: Patient) -> Iterator[Candidate]:
        """From the findings, worst first: each rule's remedies in its order, then what helps such faults in
        general.
        """
        seen: set[tuple[str, ...]] = set()
        done = {r.cure for r in patient.done}
        found = [f for f in patient.diagnosis.walk() if f.severity != "note"]
        for finding in sorted(found, key=lambda f: -SEVERITIES.index(f.severity)):
            for candidate in self._of(finding):
                key = candidate.names
                if (
                    key in seen
                    or done & {*key}
                    or not all(r.safety in self.allowed for r in candidate.remedies)
                ):
                    continue
                seen.add(key)
                yield candidate

    def _of(self, finding: Finding) -> Iterator[Candidate]:
        table = cures()
        for remedy in finding.remedies:
            if remedy.safety != "advice" and remedy.cure in table:
                first = replace(remedy, safety=table[remedy.cure].safety)
                rest = [
                    Remedy(n, (), f"to fit what {remedy.cure} changed", table[n].safety)
                    for n in (FOLLOWED.get(remedy.cure, ()) if finding.code in DEPTH else ())
                ]
                yield Candidate((first, *rest))
        for names in GENERAL.get(finding.code, ()):
            why = f"against {finding.name}"
            yield Candidate(tuple(Remedy(n, finding.sites, why, table[n].safety) for n in names))

    # -- one candidate

    def _copy(self) -> Patient:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model, optimizer = copy.deepcopy((self.model, self.optimizer))
            except Exception as error:
                said = str(error).partition(". ")[0].partition("\n")[0]
                raise SurgeryError(
                    f"the model cannot be copied ({type(error).__name__}: {said}), and cures are tried on a "
                    "copy; make copy.deepcopy(model) work: it must hold no lock, open file, or tensor "
                    "computed from parameters, as the old torch.nn.utils.weight_norm does"
                ) from error
        return Patient(model, optimizer, self.loss, (), Receipt(), self.before)

    def _try(self, patient: Patient, candidate: Candidate) -> Patient | None:
        """The patient after a candidate, None (and a note) where it cannot be applied or the model then
        fails.
        """
        try:
            return self._applied(patient, candidate.remedies)
        except (SurgeryError, CheckError, ModelCrash, ValueError, RuntimeError) as error:
            self._note(candidate, patient, f"cannot be applied: {str(error).splitlines()[0][:160]}")
            return None

    def _applied(self, patient: Patient, remedies: Iterable[Remedy]) -> Patient | None:
        """A fresh copy with everything done before, and these remedies, each planned on the copy as it then
        is.
        """
        fresh = self._copy()
        surgery = Surgery(
            fresh.model, batch=self.batch, loss=self.loss, optimizer=fresh.optimizer, seed=self.seed
        )
        for remedy in patient.done:
            operate(surgery, remedy)
        done, diagnosis = list(patient.done), patient.diagnosis
        for place, remedy in enumerate(remedies):
            if place:
                diagnosis = self._checked(surgery)
            planned = cures()[remedy.cure].plan(diagnosis.trace, remedy)
            if not planned:
                return None
            for concrete in planned:
                operate(surgery, concrete)
            done += planned
        receipt = surgery.finish()
        diagnosis = self._checked(surgery)
        return Patient(fresh.model, fresh.optimizer, surgery.loss, tuple(done), receipt, diagnosis)

    def _checked(self, surgery: Surgery) -> Diagnosis:
        return check(
            surgery.model,
            self.batch,
            surgery.loss,
            optimizer=surgery.optimizer,
            confirm=False,
            theory=False,
            name=self.before.subject,
        )

    def _pruned(self, patient: Patient) -> Patient:
        """The same without remedies that turn out not to be needed; never what was rejected by itself."""
        names = list(dict.fromkeys(r.cure for r in patient.done))
        for name in names:
            rest = tuple(r for r in patient.done if r.cure != name)
            if not rest or len(names) == 1 or self.late or frozenset(r.cure for r in rest) in self.rejected:
                continue
            start = replace(patient, done=rest)
            try:
                lean = self._applied(start, ())
            except (SurgeryError, CheckError, ModelCrash, ValueError, RuntimeError):
                continue
            if lean is not None and lean.diagnosis.healthy:
                return self._pruned(lean)
        return patient

    # -- proof

    def _proof(self, patient: Patient) -> Proof:
        """All rules, the total, and equal-seed training."""
        comparable = patient.loss is self.loss
        exact = all(r.safety == "exact" for r in patient.done)
        before: tuple[float, ...] = ()
        after: tuple[float, ...] = ()
        trials: list[float] = []
        took = 0.0
        if not exact or not _same_rules(self.before, patient.diagnosis):
            while undecided(trials) and not (trials and self._too_late(took, trials[-1])):
                started = time.perf_counter()
                untreated, treated = self._untreated(len(trials)), self._trained(patient, len(trials))
                before, after = (before, after) if trials else (untreated, treated)
                trials.append(behind(untreated, treated, comparable))
                took = time.perf_counter() - started
        return Proof(
            self.before.codes(),
            patient.diagnosis.codes(),
            total_of(self.before),
            total_of(patient.diagnosis),
            before,
            after,
            comparable,
            judged(trials) if trials else "no effect",
            statistics.median(trials) if trials else 0.0,
        )

    def _too_late(self, took: float, last: float) -> bool:
        """Whether there is no time for another trial: a whole one tells more than two cut short, as the
        untreated net may catch up late. After a clear one, it may take a fifth of what is left.
        """
        left = self.deadline - time.perf_counter()
        return took > (left / 5 if last < -CLOSE else left)

    def _untreated(self, trial: int) -> tuple[float, ...]:
        if trial not in self.losses:
            self.losses[trial] = self._trained(self._copy(), trial)
        return self.losses[trial]

    def _trained(self, patient: Patient, trial: int) -> tuple[float, ...]:
        seconds = max(2.0, (self.deadline - time.perf_counter()) / 3)
        seed = self.seed + trial
        return training(patient.model, self.batch, patient.loss, patient.optimizer, self.steps, seed, seconds)

    def _outcome(self, patient: Patient, proof: Proof | None, reason: str) -> Cured:
        prescription = Prescription(patient.done, fingerprint(self.model) if patient.done else {})
        advice = tuple(
            {
                r.cure: r
                for f in self.before.walk()
                if f.severity != "note"
                for r in f.remedies
                if r.safety == "advice"
            }.values()
        )
        return Cured(
            patient.model,
            patient.loss,
            prescription,
            self.before,
            patient.diagnosis,
            proof,
            patient.receipt,
            tuple(self.attempts),
            advice,
            reason,
        )


def _same_rules(before: Diagnosis, after: Diagnosis) -> bool:
    return before.codes() == after.codes()


def _helps(one: Patient, other: Patient) -> bool:
    """Whether one patient is clearly better off than another."""
    (a, x), (b, y) = one.burden, other.burden
    return a < b or (a == b and x < 0.8 * y - 0.1)


def _told(proof: Proof) -> str:
    if proof.outcome == "better":
        well = proof.behind <= BARELY
        return "healed and proven" if well else "healed, but trains barely as well as before"
    if proof.training == "worse":
        return "healed, but trains worse than before"
    if not proof.towards_zero:
        return "healed, but the total moved away from 0 decades"
    return "healed, but nothing shows that it trains better"


def _left(patient: Patient, before: Patient) -> str:
    codes = " ".join(patient.diagnosis.codes())
    return f"leaves {codes}" + ("" if _helps(patient, before) else ", no better")
