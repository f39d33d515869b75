"""`cure`: the smallest set of remedies that proves itself, found by trying them on copies.

Notable:
- Candidates come from the findings, in the rules' own order (`candidates`); each is planned on the network as
  it is when its turn comes, so a second remedy is planned on what the first one left (`patient`).
- All rules and the total judge a candidate again; what heals is then trained for a few steps, like the
  original and from the same seed (`proof`). What is worse in any of these is not returned.
- A trained model keeps its function: only `exact` remedies are tried on it, unless the caller allows others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from unvanish.clinic.arguments import require_number, require_text
from unvanish.clinic.candidates import Candidate, needs_cure, propose
from unvanish.clinic.check import diagnose, require_optimizer
from unvanish.clinic.patient import Admission, Patient
from unvanish.clinic.prescription import Prescription, fingerprint
from unvanish.clinic.proof import Prover
from unvanish.clinic.rounds import choose_rules
from unvanish.clinic.samples import BATCHES, ProofSamples, divide
from unvanish.clinic.trials import BARELY, can_run, looks_trained
from unvanish.core.cured import Attempt, Cured, Proof
from unvanish.core.diagnosis import Remedy, at_least
from unvanish.core.plain import name_value
from unvanish.probes.batches import read_batch
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.intact import intact, unwrap
from unvanish.probes.steps import TrainingStep
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

MOST = 4  # remedies of a treatment: with more it is another architecture
MARGINAL = 3  # proven treatments, each barely behind in training, of which the best is taken
REFUSED = (
    SurgeryError,
    CheckError,
    ModelCrash,
    ValueError,
    RuntimeError,
)  # by a cure, or by the treated model


def cure(
    model: Any,
    batch: Any,
    loss: Callable[..., Any] | None = None,
    *,
    step: Callable[[Any, Any], Any] | None = None,
    optimizer: Any = None,
    allow: Iterable[str] | None = None,
    budget: float = 60.0,
    steps: int = 60,
    seed: int = 0,
    name: str | None = None,
) -> Cured:
    """Find the smallest set of remedies that heals the model, and prove it on a copy.

    The model itself and the random state are left alone; `cured.model` is a treated copy. `batch`, `step`:
    as in `check`; of a loader the first batch is examined, and the proof trains and judges on the next ones;
    of a single batch of 16 samples or more a quarter is kept for judging. `allow`: the kinds of remedies to
    try, "exact" and "retrain"; by default both on an untrained model, only "exact" on a trained one.
    `budget`: seconds after which the best so far is taken. `steps`: of the equal-seed training in the proof,
    by Adam, and by `optimizer` if it is given; without a loss nothing is trained. CheckError and ModelCrash
    as in `check`; SurgeryError for a model that cannot be operated on (wrapped, compiled, scripted).
    """
    started = time.perf_counter()
    require_number("budget", budget, "seconds")
    require_number("steps", steps)
    require_number("seed", seed)
    require_text(name=name)
    if optimizer is not None:
        require_optimizer(optimizer)
    deadline = started + budget
    Surgery(model)  # refuses what must not be changed, before any work
    allowed = _read_allowed(allow, model, optimizer)
    reading = read_batch(model, batch, loss, step=step, most=BATCHES)
    batch, loss, batches = reading.batch, reading.loss, (reading.batch, *reading.more)
    with intact(unwrap(model), batches, loss, off=()) as kept, kept:  # copies may share things with the model
        before = diagnose(
            model, reading, choose_rules(None, None, None), optimizer=optimizer, theory=False, name=name
        )
        admission = Admission(unwrap(model), optimizer, loss, batch, before, seed)
        untreated, samples = admission.copy(), divide(batches, seed)
        if not all(can_run(untreated.model, b, loss) for b in (*samples.training, samples.judging)):
            samples = ProofSamples((batch,), batch, 0)
        prover = Prover(untreated, samples, steps, seed, deadline)
        found = Search(admission, allowed, prover, deadline).run()
    return replace(found, seconds=time.perf_counter() - started)


def _read_allowed(allow: Iterable[str] | None, model: nn.Module, optimizer: Any) -> frozenset[str]:
    if allow is None:
        return frozenset({"exact"} if looks_trained(model, optimizer) else {"exact", "retrain"})
    wanted = [allow] if isinstance(allow, str) or not isinstance(allow, Iterable) else list(allow)
    for kind in wanted:
        if not isinstance(kind, str) or kind not in ("exact", "retrain"):
            raise CheckError(f"allow holds {name_value(kind)}; use 'exact', 'retrain' or both")
    return frozenset({*wanted, "exact"})


@dataclass
class Search:
    """The search for a prescription; `run` returns the outcome."""

    admission: Admission
    allowed: frozenset[str]
    prover: Prover
    deadline: float  # of time.perf_counter
    attempts: list[Attempt] = field(default_factory=list)
    rejected: set[frozenset[str]] = field(
        default_factory=set
    )  # cures that healed, but did not prove themselves
    improved: tuple[Patient, Proof] | None = None  # the first that trains now, but worse than a fresh start

    @property
    def late(self) -> bool:
        """Whether the budget is used up."""
        return time.perf_counter() > self.deadline

    def run(self) -> Cured:
        """Treat, prove, and report."""
        best = start = self.prover.untreated
        if not needs_cure(self.admission.diagnosis):
            return self._report(start, None, "nothing is wrong on this batch, so nothing was changed")
        while len(best.done) < MOST and not self.late:
            better = self._try_candidates(best)
            if better is None:
                break
            best, proof = better
            if proof is not None:
                return self._report(best, proof, "")
        return self._report_unhealed(best, start)

    # -- one round

    def _try_candidates(self, patient: Patient) -> tuple[Patient, Proof | None] | None:
        """The first candidate that heals and trains at least as well, with its proof.

        Without one: the best of those that heal and fall barely behind, with its proof; else the one that
        helps most, without a proof; else None.
        """
        best: Patient | None = None
        marginal: list[tuple[Patient, Proof]] = []
        for candidate in propose(patient, self.allowed):
            if self.late or len(marginal) == MARGINAL:
                break
            treated = self._try(patient, candidate)
            if treated is None:
                continue
            if needs_cure(treated.diagnosis):
                self._note(candidate, patient, _describe_rest(treated, patient))
                best = treated if treated.is_better_than(best or patient) else best
                continue
            treated = self.prune(treated)
            proof = self.prover.prove(treated)
            self._note(candidate, patient, _describe_proof(proof))
            if proof.outcome != "better":
                self.rejected.add(treated.cures)
                self.improved = self.improved or ((treated, proof) if proof.outstripped else None)
            elif proof.behind <= BARELY:
                return treated, proof
            else:
                marginal.append((treated, proof))
        if marginal:
            return min(marginal, key=lambda found: found[1].behind)
        return None if best is None else (best, None)

    def _try(self, patient: Patient, candidate: Candidate) -> Patient | None:
        """The patient after a candidate; None, and a note, if it cannot be applied or the model fails."""
        try:
            return self.admission.treat(patient.done, patient.diagnosis, candidate.remedies)
        except REFUSED as error:
            self._note(candidate, patient, f"cannot be applied: {str(error).splitlines()[0][:160]}")
            return None

    def prune(self, patient: Patient) -> Patient:
        """The same without remedies that turn out not to be needed; never what was rejected by itself."""
        names = list(dict.fromkeys(r.cure for r in patient.done))
        for name in names if len(names) > 1 else []:
            rest = tuple(r for r in patient.done if r.cure != name)
            if self.late or frozenset(r.cure for r in rest) in self.rejected:
                continue
            try:
                lean = self.admission.treat(rest, patient.diagnosis, ())
            except REFUSED:
                continue
            if lean is not None and not needs_cure(lean.diagnosis):
                return self.prune(lean)
        return patient

    def _note(self, candidate: Candidate, patient: Patient, result: str) -> None:
        names = (*(r.cure for r in patient.done), *candidate.names)
        self.attempts.append(Attempt(tuple(dict.fromkeys(names)), result))

    # -- the outcome

    def _report_unhealed(self, best: Patient, start: Patient) -> Cured:
        """If no candidate heals: the best proven improvement, or nothing."""
        if best.done:
            proof = self.prover.prove(best)
            if proof.outcome == "better" and proof.behind <= BARELY:
                left = ", ".join(best.diagnosis.codes())
                why = f"better, but {left} is still found; nothing tried heals it" if left else ""
                return self._report(best, proof, why)
        if self.improved is not None:
            why = "it trains now, but its layers drawn afresh would train clearly better"
            return self._report(*self.improved, why)
        return self._report(start, None, self._explain_failure())

    def _explain_failure(self) -> str:
        if self.late:
            return "the time ran out before anything proved itself; give it a larger budget"
        if self.attempts:
            return (
                f"none of the {len(self.attempts)} treatments tried healed the model without making it worse"
            )
        if "retrain" not in self.allowed:
            trained = looks_trained(self.admission.model, self.admission.optimizer)
            why = "the model looks trained, so " if trained else ""
            return (
                f"{why}only remedies that keep its function were considered, and none applies; "
                "allow 'retrain' to consider the others"
            )
        return "what was found has no remedy that can be applied; the findings say what a person can do"

    def _report(self, patient: Patient, proof: Proof | None, reason: str) -> Cured:
        architecture = fingerprint(self.admission.model) if patient.done else {}
        loss = patient.loss.function if isinstance(patient.loss, TrainingStep) else patient.loss
        return Cured(
            patient.model,
            loss,
            Prescription(patient.done, architecture),
            self.admission.diagnosis,
            patient.diagnosis,
            proof,
            patient.receipt,
            tuple(self.attempts),
            self._advice(),
            reason,
        )

    def _advice(self) -> tuple[Remedy, ...]:
        """What the findings advise a person to do, each once."""
        loud = at_least(self.admission.diagnosis.walk(), "warning")
        advice = [r for f in loud for r in f.remedies if r.safety == "advice"]
        return tuple({r.cure: r for r in advice}.values())


def _describe_proof(proof: Proof) -> str:
    """How a treatment that heals did in its proof."""
    if proof.outcome == "better":
        well = proof.behind <= BARELY
        return "healed and proven" if well else "healed, but trains barely as well as before"
    if proof.training == "worse":
        return "healed, but trains worse than before"
    if proof.outstripped and proof.towards_zero:
        return "healed, but a fresh start of its layers trains better"
    if not proof.towards_zero:
        return "healed, but the total moved away from 0 decades"
    return "healed, but nothing shows that it trains better"


def _describe_rest(patient: Patient, before: Patient) -> str:
    """What a treatment that does not heal leaves."""
    codes = " ".join(patient.diagnosis.codes())
    return f"leaves {codes}" + ("" if patient.is_better_than(before) else ", no better")
