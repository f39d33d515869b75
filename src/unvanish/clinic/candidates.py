"""Candidates of a cure: what the findings ask for, then what helps such faults in general.

Notable: the tables name textbook treatments, the smaller ones first: numbers are set before layers are added,
and layers are added before the architecture changes (LAST, for what the rules themselves offer too).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from unvanish.clinic.patient import Patient
from unvanish.core.diagnosis import SEVERITIES, Diagnosis, Finding, Remedy, at_least
from unvanish.cures import cures

# Faults of the flow along the depth. They share their cures, as each of them shrinks or grows the gradient
# a little in every layer.
DEPTH = ("INI001", "INI002", "ACT001", "ACT002", "ACT003", "DEP001", "DEP002", "DEP003", "NRM001")
# Remedies that are only half of one: the right initialisation depends on activation and normalisation.
FOLLOWED: dict[str, tuple[str, ...]] = {
    "swap-activation": ("reinitialise",),
    "swap-normalisation": ("reinitialise",),
}
# Of the rate that the first step asks for: momentum, and steeper places later, may ask for less.
RATES = (1.0, 0.1, 0.01)
# What is tried against each fault after its finding's own remedies.
GENERAL: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(
        DEPTH,
        (
            ("reinitialise",), ("backward-lsuv",), ("reinitialise", "backward-lsuv"),
            ("insert-normalisation",), ("tat",), ("dks",), ("add-skips",), ("add-skips", "reinitialise"),
            ("scale-branches",), ("zero-init-branches",), ("reinitialise", "insert-normalisation"),
            ("insert-normalisation", "add-skips"),
        ),
    ),
    # no slope where the model stands: another start has one
    "GRF007": (("shrink-output-layer",), ("reinitialise",)),
    # one zero hides another: the whole model, if its first ones were not all
    "GRF004": (("reinitialise",),),
    # only new random weights make equal units differ
    "INI003": (("reinitialise",),),
    # exp and its like overflow behind weights that are too large: bounded they are finite, and saturated
    "NUM001": (("reinitialise",),),
    # the input comes first; weights that were drawn for its old scale follow
    "INP001": (("standardise-input",), ("standardise-input", "reinitialise")),
    # normalisation after the sum: move it into the branch, or scale the branches by the depth
    "NRM002": (("pre-normalisation",), ("deepnorm",), ("admin",)),
    # logits are too large: normalise what they are made of, or draw it again
    "ATT001": (("qk-norm",), ("reinitialise",)),
    # tokens grow alike with the depth: a clean residual stream keeps them apart
    "ATT002": (("pre-normalisation",), ("deepnorm",), ("reinitialise",), ("add-skips",), ("qk-norm",)),
    # along time: first the biases of the gates and the recurrent weights, then another cell
    "REC001": (
        ("chrono-bias",), ("orthogonal-recurrence",), ("chrono-bias", "orthogonal-recurrence"),
        ("replace-cell",), ("standardise-input",), ("forget-gate-bias",),
    ),
    "REC002": (("orthogonal-recurrence",), ("orthogonal-recurrence", "chrono-bias"), ("replace-cell",)),
    # answers that are too sure: start near chance, or take the loss of the logits
    "OUT001": (
        ("shrink-output-layer",), ("use-loss-with-logits",),
        ("shrink-output-layer", "use-loss-with-logits"),
    ),
    "OUT003": (("shrink-output-layer",), ("reinitialise",)),
    # the optimizer that was given would overshoot
    "OPT008": (("lower-learning-rate",),) * len(RATES),
    # numbers beyond the range of float16
    "PRC001": (("bfloat16",), ("keep-float32",)),
    "PRC002": (("bfloat16",), ("keep-float32",)),
}  # fmt: skip


WHOLE = ("GRF004",)  # faults against which the general treatments take the whole model
# What changes the architecture: the way the gradient takes, or what a layer is. It comes after numbers,
# activations and normalisations. What few textbooks name comes behind it.
LAST = ("add-skips", "replace-cell")
RARE = ("tat", "dks")
# What is treated although it is only a note: nobody asked about the rate, but the optimizer was given.
REMARKED = ("OPT008",)


@dataclass(frozen=True)
class Candidate:
    """Remedies to be planned and applied one after the other."""

    remedies: tuple[Remedy, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The cures' names."""
        return tuple(r.cure for r in self.remedies)


def propose(patient: Patient, allowed: frozenset[str]) -> Iterator[Candidate]:
    """From the findings, worst first and a cause before what it explains: each rule's own remedies, then what
    helps such faults in general, and a change of the architecture last.

    `allowed`: the kinds of remedies that may be used; none whose cure was applied already comes again.
    """
    proposed: set[tuple[tuple[str, ...], bool, str]] = set()
    for finding in _sort_findings(patient.diagnosis):
        for candidate in sorted(_answer(finding), key=_rank):
            first = candidate.remedies[0]
            key = candidate.names, bool(first.targets) or finding.code not in WHOLE, str(first.parameters)
            fresh = key not in proposed and not patient.cures & {*candidate.names}
            if fresh and all(r.safety in allowed for r in candidate.remedies):
                proposed.add(key)
                yield candidate


def _rank(candidate: Candidate) -> int:
    """0 for numbers, activations and normalisations, 1 for the architecture, 2 for what is rare."""
    return 2 if {*RARE} & {*candidate.names} else int(bool({*LAST} & {*candidate.names}))


def _list_treated(diagnosis: Diagnosis) -> list[Finding]:
    """The findings that a cure is for."""
    loud = at_least(diagnosis.walk(), "warning")
    return [*loud, *(f for f in diagnosis.walk() if f.code in REMARKED and f not in loud)]


def needs_cure(diagnosis: Diagnosis) -> bool:
    """Whether anything is found that a cure is for."""
    return bool(_list_treated(diagnosis))


def _sort_findings(diagnosis: Diagnosis) -> list[Finding]:
    """The findings that a cure is for: by the worst of what each explains, its consequences behind it."""
    whole = [_list_treated(replace(diagnosis, findings=(top,))) for top in diagnosis.findings]
    worst = [max((SEVERITIES.index(f.severity) for f in part), default=0) for part in whole]
    return [f for _, part in sorted(zip(worst, whole, strict=True), key=lambda pair: -pair[0]) for f in part]


def _answer(finding: Finding) -> Iterator[Candidate]:
    """The candidates against one finding."""
    table = cures()
    for remedy in finding.remedies:
        if remedy.safety != "advice" and remedy.cure in table:
            first = replace(remedy, safety=table[remedy.cure].safety)
            rest = [
                Remedy(n, (), f"to fit what {remedy.cure} changed", table[n].safety)
                for n in (FOLLOWED.get(remedy.cure, ()) if finding.code in DEPTH else ())
            ]
            yield Candidate((first, *rest))
    for place, names in enumerate(GENERAL.get(finding.code, ())):
        why, where = f"against {finding.name}", () if finding.code in WHOLE else finding.sites
        settings = {"less": RATES[place]} if names == ("lower-learning-rate",) else {}
        yield Candidate(tuple(Remedy(n, where, why, table[n].safety, settings) for n in names))
