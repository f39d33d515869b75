"""A NaN or an infinity: the first operation that makes one of finite numbers, forward or backward.

Why it harms

One such number spreads to everything that is computed from it, and one step with it ends the
training. The famous trap is finite forward and not backward:

    where(x > 0, sqrt(x), 0),   d sqrt(x)/dx = inf at 0,   inf * 0 = NaN

An example

    h = torch.where(x > 0, torch.sqrt(x), 0.0)           # NaN in the gradient
    safe = torch.where(x > 0, x, 1.0)                    # the mask on both sides of the root
    h = torch.where(x > 0, torch.sqrt(safe), 0.0)

How it is measured

If the loss or a gradient is not finite, every operation of the forward pass and every node of the
backward pass is looked at: the first whose inputs are finite and whose result is not is the
producer; all others only pass it on. A mask that writes -inf has made none, and the softmax of a
row that is all -inf has. If only the backward breaks, at what the forward had made and the loss
discards, its producer is named. Parameters, inputs and targets that hold one themselves are named
first, targets also if the loss is finite because it is masked too late. If only the loss overflows,
because the gradient explodes over the depth, it is a note. A power below one, in the loss, of a
probability that is below the rounding of one (1e-7), or of exactly that with a number of 0 added,
is a warning before it breaks.

Limits

None for a number, which is finite or not. Whether the gradient explodes is judged as for INI002.

Remedies

Move the pole out of reach before the operation: clamp the input, add an epsilon inside (retrain).
Use the stable function: log_softmax, logsumexp, log1p, binary cross-entropy with logits (exact).
What helps depends on the operation: zero_infinity for CTC, a count of at least one in a mean, a
decomposition of distinct values, atan2 for acos, a row that keeps one key.
Restore the parameters from a checkpoint (advice).

When it is wrong

A mask of -inf before a softmax is finite afterwards and is no fault unless a whole row is masked.

References: Goldberg 1991; the PyTorch documentation, numerical accuracy and anomaly
detection.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, Remedy
from unvanish.core.loss_facts import NearPoleFacts
from unvanish.core.run_facts import BrokenFacts
from unvanish.core.trace import Site, Trace
from unvanish.rules import _depth, _places, _poles
from unvanish.rules._fault import UNBOUNDED, Fault, blame_loss
from unvanish.rules._tiers import NOT_FINITE, REMARK

NEEDS = ("static", "step")
LIVE = True
AT_ONCE = True
EXPLAINS = (
    "ACT001", "ACT002", "ACT003", "ATT001", "ATT002", "DEP001", "DEP002", "GRF004", "INI001", "INI002",
    "INI003", "INP001", "NRM001", "NRM002", "OUT001", "OUT003", "REC001", "REC002", "PRC001",
)  # fmt: skip


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming the producer of the first non-finite number."""
    if trace.facts.get("live"):
        return _report_step(trace)
    bad = [i for i in trace.where("parameter") if trace.value(i, "gradient_nonfinite") > 0]
    loss = float(trace.facts.get("loss", 0.0))
    origin = _find_origin(trace, loss)
    if origin is None and not bad and math.isfinite(loss):
        near = trace.facts.get("near_pole")
        return [] if near is None else [_foresee(near)]
    origin = origin or _Origin("loss", f"the loss is {loss}", "" if math.isfinite(loss) else AFTER)
    explained = not origin.stored and (_explodes(trace) or _takes_logarithms_for_targets(trace, origin))
    return [
        Fault(
            severity="note" if explained else "error",
            cause=origin.describe(),
            sites=(origin.where,),
            evidence=(
                Evidence("first non-finite number", origin.what, site=origin.where),
                Evidence("loss", loss if math.isfinite(loss) else UNBOUNDED, limit="finite"),
                Evidence(
                    "parameters with a non-finite gradient",
                    len(bad),
                    unit=f"of {len(trace.where('parameter', trainable=True))}",
                    limit="0",
                ),
            ),
            remedies=origin.remedies or _remedy("", origin.where),
            direction="blocked",
            tier=REMARK if explained else NOT_FINITE,
        )
    ]


def _foresee(near: NearPoleFacts) -> Fault:
    """A power of a probability that the next step may take at zero."""
    place, kind = f" at {near['source']}" if near["source"] else "", near["kind"]
    return blame_loss(
        f"{kind}{place} takes the power {near['exponent']:g} of a probability that has come to "
        f"{near['least']:.1g}: its slope is infinite at 0, and the gradient is no number there",
        Evidence("least number that a power below one is taken of", near["least"], site="loss"),
        Remedy("bound-operation", ("loss",), _poles.describe_care("pow"), "advice"),
        NOT_FINITE,
    )


BEFORE = "before anything was computed"
AFTER = "from finite activations"
OFF = "of numbers that need no gradient"


@dataclass(frozen=True)
class _Origin:
    """Where the first non-finite number comes from, what made it, and when; `stored`: it was there before."""

    where: str
    what: str
    when: str
    stored: bool = False
    remedies: tuple[Remedy, ...] = ()
    line: str = ""  # of the user's code
    place: str = ""  # if it is not the site's name

    def describe(self) -> str:
        """The cause in one sentence; a function that the model itself calls has the name of its place."""
        own = self.what.startswith(f"{self.where} ")
        place = f" in {self.place or self.where}" if self.place or not own else ""
        place += f" ({self.line})" if self.line else ""
        return f"{self.what}{place}" + (f", {self.when}" if self.when else "")


def _find_origin(trace: Trace, loss: float) -> _Origin | None:
    """The origin of the first non-finite number, the most certain one; None if only the loss shows it."""
    held = [i for i in trace.where("parameter") if trace.value(i, "weight_nonfinite") > 0]
    if held:
        where = trace.sites[held[0]].label
        why = "a stored NaN does not go away by training"
        remedy = Remedy("restore-checkpoint", (where,), why, safety="advice")
        return _Origin(where, "a NaN or an infinity is stored", BEFORE, True, (remedy,))
    fed = [i for i in trace.where("input") if trace.value(i, "forward_nonfinite") > 0]
    if fed:
        where = trace.sites[fed[0]].label
        why = "find the samples that hold it, and drop or fill them"
        remedy = Remedy("clean-input", (where,), why, safety="advice")
        return _Origin(where, "a NaN or an infinity is fed", BEFORE, True, (remedy,))
    first = trace.where("node", nonfinite_first=True)
    site = trace.sites[first[0]] if first else None
    hidden = math.isfinite(loss)
    if trace.facts.get("target_nonfinite") and (not hidden or (site and site.facts.get("in_loss"))):
        return _blame_target(site if hidden else None)
    aside = trace.facts.get("aside")
    if aside is not None and (site is None or site.facts.get("produces") != "backward") and not hidden:
        where = "the loss" if aside["in_loss"] else "(model)"
        remedies = _remedy(aside["kind"], "loss" if aside["in_loss"] else "(model)")
        what = f"{aside['kind']} makes the first {aside['makes']}"
        return _Origin("loss", what, OFF, remedies=remedies, line=aside["line"], place=where)
    if site is None:
        return None
    kind = site.facts.get("nonfinite_kind", "NaN or infinity")
    when = "forward" if site.facts.get("produces") == "forward" else "only in the backward pass"
    remedies = _remedy(site.kind, site.label, half=_runs_in_half(trace))
    return _Origin(
        site.label,
        f"{site.kind} makes the first {kind}",
        when,
        remedies=remedies,
        line=site.facts.get("line", ""),
        place="the loss" if site.facts.get("in_loss") else "",
    )


def _blame_target(reader: Site | None) -> _Origin:
    """Targets that hold a NaN; `reader`: what reads it in a loss that is finite, since a mask comes after."""
    if reader is None:
        why = "find the samples whose target holds it, and drop or fill them"
        return _Origin(
            "target", "a NaN or an infinity is fed", BEFORE, True, (_advise("clean-input", "target", why),)
        )
    why = "choose before the loss function, loss(out[mask], y[mask]): 0 times NaN is NaN in the backward"
    return _Origin(
        "target",
        f"a NaN or an infinity, which {reader.kind} in the loss reads and a mask hides too late, is",
        "",
        remedies=(_advise("mask-before", "target", why),),
        line=reader.facts.get("line", ""),
    )


def _takes_logarithms_for_targets(trace: Trace, origin: _Origin) -> bool:
    """Whether a divergence whose arguments are swapped took the logarithm of a negative number."""
    swapped = any(trace.sites[i].facts.get("swapped") for i in trace.where("output"))
    return swapped and origin.what.startswith("kl_div")


def _explodes(trace: Trace) -> bool:
    """Whether only the loss overflows, and the depth says why."""
    reading = _depth.read(trace) if trace.facts.get("loss_overflow") else None
    return reading is not None and reading.direction == "exploding"


def _advise(cure: str, where: str, why: str) -> Remedy:
    return Remedy(cure, (where,), why, safety="advice")


def _runs_in_half(trace: Trace) -> bool:
    """Whether anything ran in float16."""
    seen = [trace.facts.get("dtype", ""), *trace.facts.get("dtypes", ())]
    return seen.count("float16") > 0


def _remedy(kind: str, where: str, half: bool = False) -> tuple[Remedy, ...]:
    """What helps against the pole of this operation, the smallest change first."""
    why = _poles.describe_care(kind, half)
    if _poles.needs_rewriting(kind):
        return (_advise("stable-function", where, why),)
    stable = _advise("stable-function", where, "log_softmax, logsumexp, log1p, losses with logits")
    bound = Remedy("bound-operation", (where,), why)
    return (bound, stable) if _poles.has_stable_form(kind) else (bound,)


def _report_step(trace: Trace) -> Iterable[Fault]:
    """The first step of a watched run whose gradient was not finite."""
    broken = trace.facts.get("broken")
    if not broken:
        return []
    names, held, total = broken["gradients"], broken["weights"], f"of {broken['parameters']}"
    return [
        Fault(
            severity="error",
            cause=_describe_step(broken),
            sites=tuple((held or names)[: _places.MOST]),
            evidence=(
                Evidence("first step", broken["step"]),
                Evidence("gradients that are not finite", len(names), unit=total, limit="0"),
                Evidence("weights that are not finite", len(held), unit=total, limit="0"),
                *_give_loss(broken),
            ),
            remedies=(
                Remedy("skip-step", (), "on_finding='guard' leaves such steps out", safety="advice"),
                Remedy(
                    "replay",
                    (),
                    "on_finding='snapshot' keeps the step for `unvanish check --snapshot`, which names the "
                    "operation",
                    safety="advice",
                ),
            ),
            direction="blocked",
            tier=NOT_FINITE,
        )
    ]


def _give_loss(broken: BrokenFacts) -> tuple[Evidence, ...]:
    """The loss of the step, if it is known."""
    loss = broken["loss"]
    said = loss if math.isfinite(loss) else UNBOUNDED
    return (Evidence("loss at that step", said, limit="finite"),) if broken["heard"] else ()


def _describe_step(broken: BrokenFacts) -> str:
    names, held, step, loss = broken["gradients"], broken["weights"], broken["step"], broken["loss"]
    healthy = broken["last_healthy"]
    last = f"the last healthy step was {healthy}" if healthy >= 0 else "no step was healthy"
    if held:
        return f"at step {step} the weights of {held[0]} hold a NaN or an infinity already; {last}"
    if math.isinf(loss):
        return f"at step {step} the loss is {loss}, and {len(names)} gradients with it; {last}"
    share = f"{len(names)} of {broken['parameters']} gradients"
    return f"at step {step} {share} are not finite, first {names[0] if names else '?'}; {last}"


def sick() -> Case:
    """A masked square root: finite forward, NaN backward."""
    return _case(guard_inside=False)


def healthy() -> Case:
    """The mask on both sides of the root."""
    return _case(guard_inside=True)


def _case(guard_inside: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Root(nn.Module):
        """sqrt where positive, else 0."""

        def forward(self, x: Tensor) -> Tensor:
            inside = torch.where(x > 0, x, 1.0) if guard_inside else x
            return torch.where(x > 0, torch.sqrt(inside), 0.0)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), Root(), nn.Linear(32, 4))
        return Case(
            net,
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="a masked root",
        )
