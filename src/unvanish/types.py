"""The nouns: sites, traces, findings, remedies, diagnoses. Data only; NumPy is the one dependency.

Notable:
- A `Trace` is a dense array [step, site, statistic]; NaN means "not measured", -inf in a log means "exactly
  zero".
- Norms are natural logarithms of float64 norms (`*_log`), so a gradient of 1e-400 is still a number.
- Verdicts never read an absolute gradient: only differences of logs, which the scale of the loss cannot move.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Severity = Literal["note", "warning", "error"]
Direction = Literal["vanishing", "exploding", "blocked", "none"]
Safety = Literal["exact", "retrain", "advice"]
Role = Literal["node", "parameter", "step", "input", "output"]

SEVERITIES: tuple[Severity, ...] = get_args(Severity)

STATISTICS: dict[str, str] = {
    "forward_rms": "root mean square of the activation",
    "forward_max": "largest absolute activation",
    "spread": "||h - mean over samples|| / ||h||, 0 when all samples look alike",
    "cosine": "mean cosine between the samples of the batch",
    "token_cosine": "mean cosine between the tokens of a sample (activations of shape B, T, D)",
    "forward_nonfinite": "share of NaN or infinite activations",
    "backward_log": "ln of the L2 norm of dL/d(activation), float64; -inf when exactly zero",
    "backward_zero": "share of exact zeros in dL/d(activation)",
    "backward_nonfinite": "share of NaN or infinite elements in dL/d(activation)",
    "slope_sq": "<phi'^2>, the mean square slope of an activation function",
    "saturated": "share of units and samples with |phi'| < 0.05 max phi'",
    "dead": "share of units whose slope is zero for every sample and position",
    "pinned": "share of units that are in their flat region for every sample and position",
    "weight_log": "ln sqrt(||W||_F^2 / n_out): the weights' part of the backward gain",
    "weight_rms": "root mean square of the weights",
    "weight_nonfinite": "share of NaN or infinite weights",
    "weight_twins": "share of output units whose incoming weights equal another unit's",
    "gradient_log": "ln of the L2 norm of dL/d(parameter)",
    "gradient_zero": "share of exact zeros in dL/d(parameter)",
    "gradient_nonfinite": "share of NaN or infinite elements in dL/d(parameter)",
    "flushed": "share of gradient elements below the dtype's smallest number at its best loss scale",
    "overflowed": "share of gradient elements above the dtype's largest number",
    "entropy": "attention entropy / ln T, mean over heads and queries",
    "logit_max": "largest |attention logit|",
    "query_value_log": "ln(||g_q|| / ||g_v||): the queries' gradient against the values'",
    "state_log": "ln ||dL/dh_t||, the whole gradient that reaches the state of a step",
    "carry_log": "ln of the gain of a gradient carried from the last step to this one",
    "norm_log": "ln of the L2 norm of the parameters",
    "update_log": "ln(||dW|| / ||W||) of the step taken",
}


@dataclass(frozen=True)
class Site:
    """One place in the network: a module's path, its kind, which call of it, and plain facts about it.

    `role` says what kind of row this is: "node" (an operation of the autograd graph), "parameter",
    "step" (one time step of a recurrence), "input" or "output".
    """

    path: str
    kind: str
    call: int = 0
    role: Role = "node"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name shown to people: the path, its kind, and the call where there is more than one."""
        name = self.path or "(model)"
        return f"{name}[{self.call}]" if self.call else name


@dataclass(frozen=True)
class Axis:
    """A chain of dominators: every gradient path from the loss to `target` crosses each of `sites`.

    `sites` are indices into `Trace.sites`, ordered from the loss to the target.
    """

    name: str
    kind: Literal["depth", "time"]
    sites: tuple[int, ...]


@dataclass(frozen=True)
class Trace:
    """What was measured: `values[step, site, statistic]`, NaN where nothing was measured.

    `derived` keeps readings of it that several rules share.
    """

    sites: tuple[Site, ...]
    values: NDArray[np.float64]
    axes: tuple[Axis, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    statistics: tuple[str, ...] = tuple(STATISTICS)
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        expected = (len(self.sites), len(self.statistics))
        if self.values.ndim != 3 or self.values.shape[1:] != expected:
            raise ValueError(
                f"trace values have shape {self.values.shape}, expected (steps, {expected[0]}, {expected[1]})"
            )

    def column(self, statistic: str, step: int = -1) -> NDArray[np.float64]:
        """One statistic for every site, shape (sites,); KeyError names an unknown statistic."""
        if statistic not in self.statistics:
            raise KeyError(f"no statistic {statistic!r}; there are {', '.join(self.statistics)}")
        return self.values[step, :, self.statistics.index(statistic)]

    def value(self, site: int, statistic: str, step: int = -1) -> float:
        """One number; NaN when it was not measured."""
        return float(self.values.item(step, site, self._places[statistic]))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.statistics)}

    def where(self, role: Role | None = None, **facts: Any) -> list[int]:
        """Indices of the sites with this role whose facts equal the given ones."""
        found = self._by_role.get(role, ()) if role is not None else range(len(self.sites))
        for name, wanted in facts.items():
            found = [i for i in found if self.sites[i].facts.get(name) == wanted]
        return list(found)

    @cached_property
    def _by_role(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i, site in enumerate(self.sites):
            found.setdefault(site.role, []).append(i)
        return found

    def depth(self) -> Axis | None:
        """The main depth axis, the longest one, or None where the model has none."""
        axes = [axis for axis in self.axes if axis.kind == "depth"]
        return max(axes, key=lambda axis: len(axis.sites), default=None)


@dataclass(frozen=True)
class Evidence:
    """One number behind a finding, with its unit and the limit it was held against."""

    name: str
    value: float | str
    unit: str = ""
    limit: str = ""
    site: str = ""


@dataclass(frozen=True)
class Remedy:
    """A change that would help, as data: which cure, where, with what, how safe, and why."""

    cure: str
    targets: tuple[str, ...]
    why: str
    safety: Safety = "retrain"
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """A named fault: what was found, where, the numbers, the cause in one sentence, and the remedies.

    `confirmed` is True when removing the cause on a copy restored the flow, False when that was tried
    and did not, None when no experiment was made. `consequences` are findings that this one explains.
    """

    code: str
    name: str
    severity: Severity
    cause: str
    sites: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    direction: Direction = "none"
    weight: float = 0.0
    confirmed: bool | None = None
    experiment: str = ""
    consequences: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A rule that found nothing: it passed, or it did not apply, or it was skipped; `reason` says why."""

    code: str
    name: str
    reason: str


class NotApplicable(Exception):
    """Raised by a rule's `check` when the trace holds nothing for it to judge; the text is the reason."""


def written(target: Path, text: str, what: str = "report") -> Path:
    """Write a text file whole or not at all; OSError says which one and why."""
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"cannot write the {what} {target}: {error.strerror or error}") from error
    return target


@dataclass(frozen=True)
class Diagnosis:
    """The outcome of `check`: findings worst first, and what passed, did not apply or was skipped."""

    findings: tuple[Finding, ...]
    trace: Trace
    passed: tuple[Verdict, ...] = ()
    not_applicable: tuple[Verdict, ...] = ()
    skipped: tuple[Verdict, ...] = ()
    subject: str = "model"
    seconds: float = math.nan

    @property
    def healthy(self) -> bool:
        """True when nothing at or above "warning" was found."""
        return not self.at_least("warning")

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings at or above a severity."""
        floor = SEVERITIES.index(severity)
        return tuple(f for f in self.findings if SEVERITIES.index(f.severity) >= floor)

    def codes(self, severity: Severity = "warning") -> tuple[str, ...]:
        """Codes of the findings and of their consequences, worst first, without repeats."""
        return tuple(
            dict.fromkeys(
                f.code for f in self.walk() if SEVERITIES.index(f.severity) >= SEVERITIES.index(severity)
            )
        )

    def walk(self) -> Iterator[Finding]:
        """Every finding, each followed by its consequences."""

        def down(findings: Sequence[Finding]) -> Iterator[Finding]:
            for finding in findings:
                yield finding
                yield from down(finding.consequences)

        return down(self.findings)

    def save(self, path: str | Path) -> Path:
        """Write the report in the format of the file's ending (.html, .json, .txt); returns the path."""
        from unvanish.registry import report

        return written(Path(path), report(Path(path).suffix).render(self))

    def __str__(self) -> str:
        from unvanish.registry import report

        return str(report(".txt").render(self))

    def _repr_html_(self) -> str:
        from unvanish.registry import report

        return str(report(".html").fragment(self))


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
class Cured:
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

    def save(self, path: str | Path) -> Path:
        """Write the report in the format of the file's ending (.txt, .html); returns the path."""
        from unvanish.registry import report

        return written(Path(path), report(Path(path).suffix, "treatment").render(self))

    def __str__(self) -> str:
        from unvanish.registry import report

        return str(report(".txt", "treatment").render(self))

    def _repr_html_(self) -> str:
        from unvanish.registry import report

        return str(report(".html", "treatment").fragment(self))


@dataclass(frozen=True)
class Case:
    """A small model, batch and loss on which a rule must fire (`sick`) or stay silent (`healthy`)."""

    model: Any
    batch: Any
    loss: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    story: str = ""
