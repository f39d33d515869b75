"""Whether the output can give the answers that the loss asks for: its range, its axis, and the kind of loss.

Limits

    BEYOND = 0.05     of the targets outside the output's range, by 5 % of it, are a fault: fewer
                      are outliers. Targets that fit have none
    MOST = 0.25       of them outside are an error
    SEVERAL = 0.05    of the rows with several labels at once: one-hot and soft targets have none
    UNEVEN = 0.5      of the rows that add up to one as targets and not as outputs
    ZERO = 0.1        of scores that a clamp puts at 0 or 1: probabilities have none there
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from unvanish.core.diagnosis import Evidence, Remedy, Severity
from unvanish.core.facts import SiteFacts
from unvanish.core.trace import Site

BEYOND = 0.05
MOST = 0.25
SEVERAL = 0.05
UNEVEN = 0.5
ZERO = 0.1
LOGITS = ("cross_entropy", "binary_cross_entropy_with_logits")
BOUNDED = ("tanh", "softsign", "hardtanh", "erf", "hardsigmoid", "relu6", "log_sigmoid", "logsigmoid")


@dataclass(frozen=True)
class Misfit:
    """Why an output cannot give the answers, and what would."""

    severity: Severity
    cause: str
    evidence: Evidence
    remedies: tuple[Remedy, ...]


def find_misfit(site: Site) -> Misfit | None:
    """Why the output that a loss reads cannot reach its targets; None if it can."""
    facts = site.facts
    for judge in JUDGES:
        if found := judge(site.kind, facts, str(facts.get("site", "loss"))):
            return found
    return None


def _find_unit(kind: str, facts: SiteFacts, where: str) -> Misfit | None:
    """A softmax over an axis of one."""
    own = facts.get("activation") in ("softmax", "log_softmax")
    if (
        facts.get("classes") != 1
        or kind == "poisson_nll_loss"
        or not (own or kind in ("cross_entropy", "nll_loss"))
    ):
        return None
    name = facts.get("activation") or kind
    whole = facts.get("target_low", 0.0) >= 0.0 and facts.get("target_high", 1.0) <= 1.0
    to = "sigmoid" if whole else "identity"
    swap = Remedy(
        "swap-output-function", (where,), "one unit wants a sigmoid for yes or no, nothing for a number",
        parameters={"kind": str(name), "to": to}, safety="retrain" if own else "advice",
    )  # fmt: skip
    other = Remedy("use-one-output-per-class", (where,), "a softmax needs a unit for each class", "advice")
    return Misfit(
        "error",
        f"{_name('softmax', where)} runs over an axis of one: it gives 1 whatever the logit",
        Evidence("units that the softmax normalises", 1.0, limit="> 1", site=where),
        (swap, other),
    )


def _find_other_axis(kind: str, facts: SiteFacts, where: str) -> Misfit | None:
    """A softmax over another axis than that of the classes."""
    share = facts.get("unnormalised", 0.0)
    if share <= UNEVEN:
        return None
    name = str(facts.get("activation", ""))
    if name.endswith("sigmoid"):
        return _report_sigmoid(kind, name, share, where)
    return Misfit(
        "error",
        f"{_name(str(facts.get('activation')), where)} runs over another axis than that of the classes: for "
        f"{share:.0%} of the samples the probabilities do not add up to one",
        Evidence("share of rows that do not add up to one", share, limit=f"< {UNEVEN:g}", site=where),
        (Remedy("set-softmax-axis", (where,), "set its dim to the axis of the classes", "advice"),),
    )


def _report_sigmoid(kind: str, name: str, share: float, where: str) -> Misfit:
    """A sigmoid for each class, where the classes exclude each other."""
    swap = Remedy(
        "swap-output-function", (where,), "a softmax, under which the classes share one",
        parameters={"kind": name, "to": "softmax"}, safety="advice",
    )  # fmt: skip
    harm = "yes for every class is the best answer" if kind == "likelihood" else "they do not add up to one"
    return Misfit(
        "error",
        f"{_name(name, where)} gives each class a probability of its own, and {kind} shares one "
        f"among the classes: {harm}",
        Evidence("share of rows that do not add up to one", share, limit=f"< {UNEVEN:g}", site=where),
        (swap, Remedy("use-binary-cross-entropy", ("loss",), "or a yes or no for each class", "advice")),
    )


def _find_crossed(kind: str, facts: SiteFacts, where: str) -> Misfit | None:
    """A view that cuts across the axis of the classes."""
    if not facts.get("crossed"):
        return None
    return Misfit(
        "error",
        f"{kind} reads classes along an axis on which the last layer did not make them: a view between them "
        "mixes the scores of several positions",
        Evidence("axis of the classes", "another one", limit="the layer's own", site="loss"),
        (Remedy("permute-classes", ("loss",), "permute or transpose the axes instead of view", "advice"),),
    )


def _find_cut(kind: str, facts: SiteFacts, where: str) -> Misfit | None:
    """Scores that a clamp makes probabilities."""
    share = facts.get("cut_off", 0.0)
    if kind != "binary_cross_entropy" or share <= ZERO:
        return None
    return Misfit(
        "error",
        f"{kind} expects probabilities, but reads scores that a clamp cuts off: {share:.0%} of them stand at "
        "an end and learn nothing",
        Evidence("share of the scores at an end", share, limit=f"< {ZERO:g}", site=where),
        (Remedy("use-loss-with-logits", ("loss",), "the loss with logits, without the clamp", "advice"),),
    )


def _find_beyond(kind: str, facts: SiteFacts, where: str) -> Misfit | None:
    """Targets outside the range of the output."""
    share, bounds = facts.get("beyond", 0.0), facts.get("bounds")
    if bounds is None or share <= BEYOND or kind.startswith("binary"):
        return None
    low, high = facts["target_low"], facts["target_high"]
    name = facts.get("activation") or "clamp"
    scale = Remedy("scale-targets", ("loss",), f"or bring the targets into {_show(bounds)}", "advice")
    linear = Remedy(
        "swap-output-function", (where,), "a linear output reaches every target",
        parameters={"kind": name, "to": "identity"},
    )  # fmt: skip
    return Misfit(
        "error" if share > MOST else "warning",
        f"{_name(name, where)} gives {_show(bounds)}, but the targets go from {low:.3g} to {high:.3g}: "
        f"{share:.0%} of them cannot be reached",
        Evidence("share of the targets beyond the output", share, limit=f"< {BEYOND:g}", site=where),
        (linear, scale),
    )


def _find_several(kind: str, facts: SiteFacts, where: str) -> Misfit | None:
    """Several labels a sample under a softmax."""
    share = facts.get("unlike_rows", 0.0)
    own = kind == "cross_entropy" and facts.get("beyond", 0.0) <= BEYOND
    if not (own or facts.get("activation") == "softmax") or share <= SEVERAL:
        return None
    if facts.get("activation") != "softmax":
        return Misfit(
            "warning",
            f"{kind} shares 1 among all classes, but {share:.0%} of the samples have several",
            Evidence("share of the samples with several labels", share, limit=f"< {SEVERAL:g}", site="loss"),
            (Remedy("use-binary-cross-entropy", ("loss",), "binary cross-entropy with logits", "advice"),),
        )
    swap = Remedy(
        "swap-output-function", (where,), "a sigmoid for each label, best under binary cross-entropy",
        parameters={"kind": "softmax", "to": "sigmoid"},
    )  # fmt: skip
    return Misfit(
        "warning",
        f"{_name('softmax', where)} shares 1 among all labels, but {share:.0%} of the samples have several",
        Evidence("share of the samples with several labels", share, limit=f"< {SEVERAL:g}", site=where),
        (swap,),
    )


def _find_bounded_logits(kind: str, facts: SiteFacts, where: str) -> Misfit | None:
    """An activation where the loss expects logits of any size and sign."""
    name = str(facts.get("activation", ""))
    negative = name == "log_softmax" and kind != "cross_entropy"
    if kind in (*LOGITS, "nll_loss", "likelihood") and facts.get("floor") and name not in BOUNDED:
        return _report_floor(kind, facts, where if name else "loss")
    if kind not in LOGITS or not (negative or name in BOUNDED):
        return None
    return _report_logits(kind, name, where, "no answer can be sure", True)


def _report_floor(kind: str, facts: SiteFacts, where: str) -> Misfit:
    """A function that keeps logits above a value."""
    name, share = facts["floor"], facts["floor_share"]
    if kind.startswith("binary"):
        harm = "every sample is at least half sure of yes"
    elif share > 0:
        harm = f"{share:.0%} of the logits are cut off there and learn nothing"
    else:
        harm = "no class is ruled out by a low score of its own"
    return _report_logits(kind, name, where, harm, facts.get("activation") == name)


def _report_logits(kind: str, name: str, where: str, harm: str, module: bool) -> Misfit:
    """`module`: the activation can be replaced where it stands."""
    swap = Remedy(
        "swap-output-function", (where,), "logits of any size and sign: leave the function out",
        parameters={"kind": name, "to": "identity"}, safety="retrain" if module else "advice",
    )  # fmt: skip
    number = Evidence("what the loss reads was made by", name, limit="logits", site=where)
    return Misfit(
        "warning", f"{kind} expects logits, but reads {_name(name, where)}: {harm}", number, (swap,)
    )


JUDGES = (
    _find_unit, _find_crossed, _find_other_axis, _find_cut, _find_beyond, _find_several, _find_bounded_logits,
)  # fmt: skip


def _name(kind: str, where: str) -> str:
    """A function and its place, where they differ."""
    own = where in (kind, "loss") or where.endswith(f".{kind}")
    return f"the {kind}{f' at {where}' if where != kind else ''}" if own else f"the {kind} of {where}"


def _show(bounds: tuple[float, float]) -> str:
    low, high = bounds
    if math.isinf(high):
        return f"{low:g} and more"
    return f"{high:g} and less" if math.isinf(low) else f"{low:g} to {high:g}"
