"""No parameter, or no parameter of a whole module that runs, gets a gradient above rounding.

Why it harms

What gets no gradient keeps its first weights. A gradient of 1e-9 that is left where two equal terms
cancel is no gradient either, although no number in it is zero:

    w / sum(w),  w a single gate   ->   d/dw = 1 / w - w / w^2 = 0, up to rounding

Adam divides by it, and walks at random.

An example

    weight, expert = gate(x).softmax(-1).max(-1, keepdim=True)
    weight = weight / weight.sum(-1, keepdim=True)      # always 1: the gate never learns

How it is measured

This is the rule for what no other rule explains. The gradients of all parameters together must not
be exactly zero; parameters in float16 not without a loss scale either, and under autocast, where a
GradScaler is usual, that is a note. A module all of whose gradients are far below the largest one
is examined again in float64, and so are all if even the largest is that far below what arrives at
some operation, as after the sum of a normalisation: what is rounding falls there to a thousandth or
less, what is meant to be small, as behind a scale of 1e-6, does not. Exact zeros of single modules
count if they cancel: by a sum of gradients, or behind layers whose sums of weights are zero. Others
are left to other rules: a zero-initialised branch is no fault, nor is a part of which this batch
selects nothing. A loss of exactly 0 is noted: it may be at its minimum on this
batch. Any other finding is taken for the cause.

Limits

    FAR = 12        nats below the largest gradient (6e-6) a module is examined again; healthy nets
                    lose at most 5.8 (measured), and the rounding of float32 is at 16

Remedies

Let a gradient through what is named: use the weights as they are, another activation, another start
(advice). In float16 scale the loss (exact).

When it is wrong

A bias that a normalisation, or a softmax over keys, takes off again is no fault, and not counted.
Parts that are meant to learn a million times more slowly than others.

References: Shazeer et al. 2017 (gates of experts).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import FLAT, PART

NEEDS = ("step",)
YIELDS = True
FAR = 12.0
LOSS: tuple[str, ...] = ("loss",)


def check(trace: Trace) -> Iterable[Fault]:
    """One fault if all parameters, or all of a module that runs, get no gradient above rounding."""
    learning = trace.where("parameter", trainable=True, reachable=True)
    if not learning:
        raise NotApplicable("the loss reaches no parameter")
    if all(trace.value(i, "gradient_log") == -math.inf for i in learning):
        return [_report_nothing(trace, learning)]
    if all(trace.sites[i].facts.get("rounding") or _is_nothing(trace, i) for i in learning):
        return [_report_rounding(learning)]
    if trace.facts.get("precision", {}).get("zero_unscaled"):
        return [_report_unscaled(trace, learning)]
    return _find_rounded(trace, learning)


def _report_nothing(trace: Trace, learning: Sequence[int]) -> Fault:
    """The fault of a model none of whose parameters gets a gradient."""
    cause, targets = f"none of the {len(learning)} parameters gets any gradient", LOSS
    stops = sorted(
        trace.where("node", kills=True), key=lambda i: -int(trace.sites[i].facts.get("starved", 0))
    )
    if stops:
        site, targets = trace.sites[stops[0]], _places.label(trace, stops)
        cause += f": {site.kind}{_places.locate(site)} passes none"
    at_minimum = trace.facts.get("loss") == 0
    if at_minimum:
        cause += "; the loss is 0, so it may be at its minimum on this batch"
    return Fault(
        severity="note" if at_minimum else "error",
        cause=cause,
        sites=targets,
        evidence=(
            Evidence(
                "parameters with exactly no gradient", len(learning), unit=f"of {len(learning)}", limit="0"
            ),
        ),
        remedies=(
            Remedy(
                "replace-operation",
                targets,
                "an operation with a slope where the model stands, or a start at which this one has a slope",
                safety="advice",
            ),
        ),
        direction="blocked",
        tier=FLAT,
        size=1.0,
    )


def _report_rounding(learning: Sequence[int]) -> Fault:
    """The fault of a loss whose gradient cancels in every parameter."""
    return Fault(
        severity="error",
        cause=f"the gradients of all {len(learning)} parameters are mere rounding: what the loss reads does "
        "not depend on them, or cancels",
        sites=LOSS,
        evidence=(Evidence("parameters at rounding", len(learning), unit=f"of {len(learning)}", limit="0"),),
        remedies=(
            Remedy(
                "replace-operation",
                LOSS,
                "let the loss depend on the output: the sum of a normalisation is always its shift, that of "
                "a softmax always 1",
                safety="advice",
            ),
        ),
        direction="blocked",
        tier=FLAT,
        size=1.0,
    )


def _report_unscaled(trace: Trace, learning: Sequence[int]) -> Fault:
    """The fault of a float16 model whose gradients are all zero without a loss scale."""
    best = trace.facts.get("precision", {}).get("best_scale_log2")
    known = best is not None and math.isfinite(best)
    return Fault(
        severity="error" if trace.facts.get("dtype") == "float16" else "note",
        cause=f"none of the {len(learning)} parameters gets any gradient: without a loss scale all of it "
        "is zero in float16" + (f"; 2^{best:.0f} would hold it" if known else ""),
        sites=("loss",),
        evidence=(
            Evidence(
                "parameters with exactly no gradient", len(learning), unit=f"of {len(learning)}", limit="0"
            ),
            *((Evidence("best loss scale", float(best), unit="log2"),) if known and best is not None else ()),
        ),
        remedies=(
            Remedy(
                "loss-scaling", (), "a GradScaler moves the gradients into float16's window", safety="exact"
            ),
            Remedy("bfloat16", (), "the range of float32 in half the memory"),
        ),
        direction="blocked",
        tier=FLAT,
        size=1.0,
    )


def _find_rounded(trace: Trace, learning: Sequence[int]) -> list[Fault]:
    """The modules all of whose gradients are rounding, or zero beside it."""
    groups: dict[str, list[int]] = {}
    for i in (i for i in learning if not trace.sites[i].facts.get("zero_by_structure")):
        owner = trace.sites[i].facts.get("module", "").partition(".parametrizations")[0]
        groups.setdefault(owner, []).append(i)
    nothing = [name for name, sites in groups.items() if all(_is_nothing(trace, i) for i in sites)]
    if not nothing:
        return []
    size = {name: max(trace.value(i, "gradient_log") for i in sites) for name, sites in groups.items()}
    seen = [trace.facts.get("dtype", ""), *trace.facts.get("dtypes", ())]
    half = seen.count("float16") > 0  # which underflows
    summed = not half and _places.is_stopped_by_sums(trace)  # so what is exactly zero cancels too
    rounded = [
        name
        for name in nothing
        if any(trace.sites[i].facts.get("rounding") for i in groups[name])
        or (summed and _is_left(trace, name))
    ]
    if not rounded:
        return []
    first = rounded[0]
    apart = max(size.values()) - size[first]
    how = f"mere rounding, {math.exp(-apart):.0e} of the largest one" if apart < math.inf else "exactly zero"
    targets = tuple(rounded[: _places.MOST])
    return [
        Fault(
            severity="warning",
            cause=f"the gradient of {first} is {how}: what is made of its output does not depend on it, or "
            "cancels",
            sites=targets,
            evidence=(
                Evidence(
                    "its gradient below the largest one",
                    apart,
                    unit="nats",
                    limit=f"< {FAR:g}",
                    site=first,
                ),
                Evidence("modules at rounding", len(rounded), unit=f"of {len(groups)}", limit="0"),
            ),
            remedies=(
                Remedy(
                    "replace-operation",
                    targets,
                    "let the loss depend on its output: a weight divided by its own sum is always 1, and a "
                    "shift before a softmax or a normalisation is taken off again",
                    safety="advice",
                ),
            ),
            direction="blocked",
            tier=PART,
            size=len(rounded) / len(groups),
        )
    ]


def _is_left(trace: Trace, module: str) -> bool:
    """Whether a module ran and no gradient arrives at anything that it made."""
    made = [trace.value(i, "backward_log") for i in trace.where("node", module=module)]
    return bool(made) and all(log == -math.inf for log in made)


def _is_nothing(trace: Trace, site: int) -> bool:
    """Whether a parameter's gradient is rounding, or exactly zero."""
    facts = trace.sites[site].facts
    return bool(facts.get("rounding")) or trace.value(site, "gradient_log") == -math.inf


def sick() -> Case:
    """Experts whose only gate weight is divided by itself."""
    return _case(normalised=True)


def healthy() -> Case:
    """The same experts, weighed by the gate."""
    return _case(normalised=False)


def _case(normalised: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Experts(nn.Module):
        """Each sample goes to one of three experts."""

        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(16, 3)
            self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            weight, chosen = self.gate(x).softmax(-1).max(-1, keepdim=True)
            if normalised:
                weight = weight / weight.sum(-1, keepdim=True)
            every = torch.stack([expert(x) for expert in self.experts], 1)
            mine = every.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 16)).squeeze(1)
            out: Tensor = self.head(x + weight * torch.tanh(mine))
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Experts(),
            (torch.randn(64, 16), torch.randint(0, 4, (64,))),
            nn.CrossEntropyLoss(),
            story="experts with one gate",
        )
