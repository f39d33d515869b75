"""Numbers, names and lists as people read them.

Notable:
- Names come from the user's model and may hold anything: `clean` escapes control characters, so no module
  path can move a cursor, split a line or fail to encode.
- A decade is a factor of ten; every number has its sign, and "-inf" means no gradient at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from unvanish.core.diagnosis import Diagnosis, Finding, Remedy, Verdict
from unvanish.core.names import show
from unvanish.core.plain import nonfinite

T = TypeVar("T")


def clean(text: object) -> str:
    """One printable line: white space folded, control characters and lone surrogates escaped."""
    return show(" ".join(str(text).split()))


def capitalise(sentence: str) -> str:
    """The sentence with a large letter and a full stop."""
    return f"{sentence[:1].upper()}{sentence[1:]}."


def decades(value: float, digits: int = 2) -> str:
    """A signed number of decades, "-18.20"; "0.00" has no sign, non-finite values are named."""
    if not math.isfinite(value):
        return nonfinite(value)
    text = f"{value:+.{digits}f}" if abs(value) < 1e5 else f"{value:+.1e}"
    return text[1:] if float(text) == 0.0 else text


def round_decades(value: float) -> str:
    """A signed number of decades for a sentence: "-18.9", "+0.19"."""
    return decades(value, 1 if abs(value) >= 9.95 else 2)


def number(value: object) -> str:
    """A number in three or four digits, "0.0569" or "4.3e-22"; whole numbers and texts as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return clean(value)
    if not math.isfinite(value):
        return nonfinite(float(value))
    if float(value).is_integer() and abs(value) < 1e7:
        return f"{value:.0f}"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def write_mark(value: float) -> str:
    """A number at an axis: at most three digits, and no zeros at their end."""
    mantissa, _, exponent = number(float(f"{value:.3g}")).partition("e")
    return f"{float(mantissa):g}e{exponent}" if exponent else mantissa


def amount(count: float) -> str:
    """A count with three digits and its magnitude: 950, 12.3 k, 1.24 M, 7.00 B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size * 0.9995:
            return f"{count / size:#.3g}".rstrip(".") + f" {letter}"
    return f"{count:.0f}"


def plural(count: int, noun: str) -> str:
    """`1 site`, `30 sites`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def cap(items: Sequence[T], limit: int) -> tuple[Sequence[T], int]:
    """The first `limit` items and the number of the others; a single other item is not hidden."""
    return (items, 0) if len(items) <= limit + 1 else (items[:limit], len(items) - limit)


def list_names(items: Sequence[str], limit: int = 3, noun: str = "more") -> str:
    """`a, b, c, and 29 more`."""
    shown, rest = cap([clean(item) for item in items], limit)
    return ", ".join(shown) + (f", and {rest} {noun}" if rest else "")


def group_by_reason(verdicts: Iterable[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """Verdicts by their reason, in the order of the reasons' first appearance."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(clean(verdict.reason) or "no reason given", []).append(verdict)
    return list(groups.items())


def list_consequences(finding: Finding) -> list[Finding]:
    """The consequences of a finding at any depth, nearest first."""
    found: list[Finding] = []
    for child in finding.consequences:
        found += [child, *list_consequences(child)]
    return found


def describe_proof(finding: Finding) -> tuple[str, str]:
    """How sure the cause is, "confirmed", "tried, not confirmed" or "indicated", and the experiment."""
    if finding.confirmed is None:
        return "indicated", clean(finding.experiment) or "no experiment was made"
    word = "confirmed" if finding.confirmed else "tried, not confirmed"
    return word, clean(finding.experiment)


def describe_remedy(remedy: Remedy) -> str:
    """A remedy as a call on its targets: `swap-activation(to=Tanh) on 30 sites`."""
    options = ", ".join(f"{clean(k)}={number(v)}" for k, v in remedy.parameters.items())
    where = clean(remedy.targets[0]) if len(remedy.targets) == 1 else plural(len(remedy.targets), "site")
    call = f"{clean(remedy.cure)}({options})" if options else clean(remedy.cure)
    return f"{call} on {where}" if remedy.targets else call


def describe_measurement(diagnosis: Diagnosis) -> list[str]:
    """The measurement in short phrases: parameters, loss, batch, dtype and device, mode, time."""
    facts = diagnosis.trace.facts
    phrases = ["predicted, nothing was run"] if facts.get("predicted") else []
    if facts.get("live"):
        steps, looks = len(facts.get("history", {}).get("step", ())), len(facts.get("steps", ()))
        phrases.append(f"a training: the last {plural(steps, 'step')}, {plural(looks, 'look')}")
    if isinstance(facts.get("parameters"), int):
        phrases.append(f"{amount(facts['parameters'])} parameters")
    if not facts.get("predicted"):
        phrases += _loss(facts.get("loss"), facts.get("loss_kind"), facts.get("objective"))
    if facts.get("batch_size") is not None:
        phrases.append(f"batch {clean(facts['batch_size'])}")
    device = "" if facts.get("predicted") else facts.get("device")
    machine = " on ".join(clean(word) for word in (facts.get("dtype"), device) if word)
    phrases += [machine] if machine else []
    if facts.get("training") is not None:
        phrases.append("training mode" if facts["training"] else "eval mode")
    if math.isfinite(diagnosis.seconds):
        phrases.append(f"{diagnosis.seconds:.{2 if diagnosis.seconds < 10 else 0}f} s")
    return phrases


def _loss(loss: object, kind: object, objective: object) -> list[str]:
    if objective == "random cotangent":
        return ["objective random cotangent"]
    if not isinstance(loss, int | float):
        return []
    name = clean(kind) if kind else "loss"
    return [f"{name} {number(loss)}" if "loss" in name.lower() else f"loss {number(loss)} ({name})"]


def describe_theory(diagnosis: Diagnosis) -> str:
    """The prediction and the measurement in one sentence; empty if nothing was predicted."""
    theory = diagnosis.trace.facts.get("theory")
    if not isinstance(theory, Mapping) or "predicted" not in theory:
        return ""
    text = (
        f"predicts {round_decades(theory['predicted'])} decades, measured {round_decades(theory['measured'])}"
    )
    apart = [
        f"{clean(label)} ({round_decades(predicted)} predicted, {round_decades(measured)} measured)"
        for label, predicted, measured in theory.get("apart", ())
    ]
    return f"{text}; they differ at {list_names(apart, 3)}" if apart else text
