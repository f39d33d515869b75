"""The proof of a treatment: all rules again, the total again, and equal-seed training of before and after.

Notable: what is worse in any of the three is not a cure, and training alone proves nothing against rules and
total.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field, replace

from unvanish.clinic.patient import Patient, read_total
from unvanish.clinic.samples import ProofSamples
from unvanish.clinic.trials import (
    CLOSE,
    PairedTrial,
    Training,
    draw_afresh,
    judge_trials,
    needs_more_trials,
    read_blind_loss,
    train_copy,
)
from unvanish.core.cured import Outcome, Proof

FLAT = 1.31  # decades: 3 nats, the rules' limit for a depth, rounded up; a total within it always trains
RANDOM = "random cotangent"  # the objective of a model without a loss
NO_TOTAL = "NUM001"  # a gradient that is not finite has no total to compare with
ENDLESS = ("OUT002", "OUT005", "LOS002")  # faults of the loss by which it may fall without end
ONE_TRAINING = 1 / 3  # of the time that is left: both sides are trained, and a third is kept for the search
CONFIRMING = 1 / 5  # of the time that is left, for a trial that only confirms a clear one
STEPS = ("lower-learning-rate",)  # cures of the user's own steps, which no other optimizer shows
LEAST = 2.0  # seconds of a training, even after the budget: a shorter one proves nothing


@dataclass(frozen=True)
class Prover:
    """Proves treatments of one model; its untreated side is trained once for each trial."""

    untreated: Patient
    samples: ProofSamples
    steps: int
    seed: int
    deadline: float  # of time.perf_counter
    losses: dict[int, Training] = field(default_factory=dict)  # of the untreated side, by trial

    def prove(self, patient: Patient) -> Proof:
        """All rules, the total, and equal-seed training.

        Without training if an exact cure changes no verdict, or without a loss: a random cotangent has no
        minimum, so a training on it proves nothing.
        """
        before, after = self.untreated.diagnosis, patient.diagnosis
        kept = all(r.safety == "exact" and r.cure not in STEPS for r in patient.done)
        unchanged = kept and before.codes() == after.codes()
        aimless = before.trace.facts.get("objective") == RANDOM
        trials = [] if unchanged or aimless else self._run_trials(patient)
        lags = [trial.lag for trial in trials]
        unseen = any(trial.on_unseen for trial in trials)
        alone = bool(trials) and not any(trial.has_rival for trial in trials)
        idle = bool(trials) and (
            all(t.is_equal for t in trials) or (alone and self._is_blind(patient, trials))
        )
        outstripped = alone and not idle and self._is_behind_a_fresh_start(patient, trials)
        return conclude(
            Proof(
                before.codes(),
                after.codes(),
                read_total(before),
                read_total(after),
                _show(trials[0].untreated, unseen) if trials else (),
                _show(trials[0].treated, unseen) if trials else (),
                patient.loss is self.untreated.loss,
                judge_trials(lags) if lags else "no effect",
                statistics.median(lags) if lags else 0.0,
                unseen=self.samples.unseen if unseen else 0,
                outstripped=outstripped,
            ),
            idle or outstripped,
        )

    def _run_trials(self, patient: Patient) -> list[PairedTrial]:
        """As many trials as the verdict needs and the budget allows, but at least one."""
        trials: list[PairedTrial] = []
        choose = _take_own if {r.cure for r in patient.done} <= {*STEPS} else _take_best
        comparable, took = patient.loss is self.untreated.loss, 0.0
        while needs_more_trials([t.lag for t in trials]) and not (
            trials and self._is_too_late(took, trials[-1].lag)
        ):
            started, number = time.perf_counter(), len(trials)
            if number not in self.losses:
                self.losses[number] = self._train(self.untreated, number)
            old, new = choose(self.losses[number]), choose(self._train(patient, number))
            trials.append(PairedTrial(old, new, comparable, self._is_endless(old)))
            took = time.perf_counter() - started
        return trials

    def _is_blind(self, patient: Patient, trials: list[PairedTrial]) -> bool:
        """Whether a treated side without a rival ends above the best answer that is the same for all samples.

        Beside a side that breaks, any fall looks like progress, from a bad start too.
        """
        least = read_blind_loss(patient.model, self.samples.training[0], patient.loss)
        return all(trial.treated.reached > least for trial in trials)

    def _is_behind_a_fresh_start(self, patient: Patient, trials: list[PairedTrial]) -> bool:
        """Whether the treated side, without a rival, falls behind itself with its layers drawn by torch.

        What broke has left the bad start behind it, such as weights by which all units are saturated.
        """
        lags = []
        for number, trial in enumerate(trials):
            drawn = draw_afresh(patient.model, patient.optimizer, self.seed + number)
            if drawn is None:
                return False
            fresh = self._train(replace(patient, model=drawn[0], optimizer=drawn[1]), number)
            lags.append(PairedTrial(fresh, trial.treated, comparable=True).lag)
        return min(lags) > CLOSE

    def _is_endless(self, training: Training) -> bool:
        """Whether the untreated loss is at fault itself, and falls below zero, which its like cannot."""
        codes, seen = self.untreated.diagnosis.codes(), training.seen
        return bool(seen) and seen[-1] < 0 and bool(set(ENDLESS) & set(codes))

    def _is_too_late(self, took: float, lag: float) -> bool:
        """Whether there is no time for another trial; after a clear one, it may take a share of what is left.

        One whole trial shows more than two that are cut short, as the untreated net may catch up late.
        """
        left = self.deadline - time.perf_counter()
        return took > (CONFIRMING * left if lag < -CLOSE else left)

    def _train(self, patient: Patient, trial: int) -> Training:
        seconds = max(LEAST, ONE_TRAINING * (self.deadline - time.perf_counter()))
        seed = self.seed + trial
        return train_copy(
            patient.model, self.samples, patient.loss, patient.optimizer, self.steps, seed, seconds
        )


def _take_best(training: Training) -> Training:
    return training


def _take_own(training: Training) -> Training:
    """The training by the user's own optimizer, which is the best one where it broke."""
    return training.own or training


def _show(training: Training, unseen: bool) -> tuple[float, ...]:
    """The losses that a trial is judged by."""
    return training.unseen if unseen else training.seen


def conclude(proof: Proof, idle: bool = False) -> Proof:
    """The proof with its verdict: better only if rules, total and training agree.

    `idle`: training shows that nothing became better, whatever the rules say.
    """
    towards_zero = _moves_towards_zero(proof)
    fewer = len(proof.codes_after) < len(proof.codes_before)
    outcome: Outcome
    if proof.training == "worse" or proof.new or not towards_zero:
        outcome = "worse"
    else:
        better = (proof.training == "better" or fewer) and not idle
        outcome = "better" if better else "no effect"
    return replace(proof, towards_zero=towards_zero, outcome=outcome)


def _moves_towards_zero(proof: Proof) -> bool:
    """Whether the total moved towards 0 decades, or is within what always trains."""
    here, there = abs(proof.total_after), abs(proof.total_before)
    if NO_TOTAL in proof.codes_before or math.isnan(there) or math.isnan(here):
        return True
    return here <= max(FLAT, there)
