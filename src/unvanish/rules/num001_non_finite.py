"""A NaN or an infinity: the first operation that makes one of finite numbers, forward or backward.

Why it harms

One such number spreads to everything that is computed from it, and one step with it ends the
training. The famous trap is finite forward and not backward:

    where(x > 0, sqrt(x), 0),   d sqrt(x)/dx = inf at 0,   inf * 0 = NaN

How it is measured

Every operation of the forward pass, and every node of the backward pass, is looked at where the
loss or a gradient is not finite: the first whose inputs are finite and whose result is not is the
producer; all others only pass it on. Parameters and inputs that hold one themselves are named
first.

Remedies

Move the pole out of reach before the operation: clamp the input, add an epsilon inside (retrain).
Use the stable function: log_softmax, logsumexp, log1p, binary cross-entropy with logits (exact).
Restore the parameters from a checkpoint (advice).

When it is wrong

A mask of -inf before a softmax is finite afterwards and is no fault unless a whole row is masked.

References: Goldberg 1991; the PyTorch documentation, numerical accuracy and anomaly
detection.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core import depth
from unvanish.core.diagnosis import Case, Evidence, Finding, Remedy, Severity
from unvanish.core.trace import Trace

NEEDS = ("static", "step")
LIVE = True
AT_ONCE = True
EXPLAINS = (
    *(
        "ACT001",
        "ACT002",
        "ACT003",
        "ATT001",
        "ATT002",
        "DEP001",
        "DEP002",
        "GRF004",
        "INI001",
        "INI002",
        "INI003",
    ),
    *("INP001", "NRM001", "NRM002", "OUT001", "OUT003", "REC001", "REC002", "PRC001"),
)


def check(trace: Trace) -> Iterable[Finding]:
    """One finding naming the producer of the first non-finite number."""
    if trace.facts.get("live"):
        return _in_a_run(trace)
    held = [i for i in trace.where("parameter") if trace.value(i, "weight_nonfinite") > 0]
    fed = [i for i in trace.where("input") if trace.value(i, "forward_nonfinite") > 0]
    first = trace.where("node", nonfinite_first=True)
    bad = [i for i in trace.where("parameter") if trace.value(i, "gradient_nonfinite") > 0]
    loss = float(trace.facts.get("loss", 0.0))
    if not (held or fed or first or bad) and math.isfinite(loss):
        return []
    where, what, when = _named(trace, held, fed, first, loss)
    at = "" if what.startswith(f"{where} ") else f" in {where}"  # a function called by the model itself
    cause = f"{what}{at}" + (f", {when}" if when else "")
    evidence = (
        Evidence("first non-finite number", what, "", "", where),
        Evidence("loss", loss, "", "finite"),
        Evidence(
            "parameters with a non-finite gradient",
            len(bad),
            f"of {len(trace.where('parameter', trainable=True))}",
            "0",
        ),
    )
    reading = depth.read(trace) if trace.facts.get("loss_overflow") and not held and not fed else None
    explained = reading is not None and reading.direction == "exploding"  # the loss overflows for that reason
    weight: float = 1.0 if explained else 1000.0
    severity: Severity = "note" if explained else "error"
    remedies = _remedies(where, bool(held), bool(fed))
    return [Finding("NUM001", "non-finite", severity, cause, (where,), evidence, remedies, "blocked", weight)]


def _in_a_run(trace: Trace) -> Iterable[Finding]:
    """What a watch saw at the first step whose gradient was not finite."""
    broken = trace.facts.get("broken")
    if not broken:
        return []
    names, held, step = broken["gradients"], broken["weights"], broken["step"]
    last = (
        f"the last healthy step was {broken['last_healthy']}"
        if broken["last_healthy"] >= 0
        else "no step was healthy"
    )
    if held:
        cause = f"at step {step} the weights of {held[0]} hold a NaN or an infinity already; {last}"
    elif not math.isfinite(broken["loss"]) and broken["loss"] == broken["loss"]:
        cause = f"at step {step} the loss is {broken['loss']}, and {len(names)} gradients with it; {last}"
    else:
        share = f"{len(names)} of {broken['parameters']} gradients"
        cause = f"at step {step} {share} are not finite, first {names[0] if names else '?'}; {last}"
    evidence = (
        Evidence("first step", step),
        Evidence("gradients that are not finite", len(names), f"of {broken['parameters']}", "0"),
        Evidence("weights that are not finite", len(held), f"of {broken['parameters']}", "0"),
        Evidence("loss at that step", broken["loss"], "", "finite"),
    )
    remedies = (
        Remedy("skip-step", (), "on_finding='guard' leaves such steps out", "advice"),
        Remedy(
            "replay",
            (),
            "on_finding='snapshot' keeps the step for `unvanish check --snapshot`, which names the operation",
            "advice",
        ),
    )
    return [
        Finding(
            "NUM001",
            "non-finite",
            "error",
            cause,
            tuple((held or names)[:12]),
            evidence,
            remedies,
            "blocked",
            1000.0,
        )
    ]


def _named(
    trace: Trace, held: list[int], fed: list[int], first: list[int], loss: float
) -> tuple[str, str, str]:
    """(where, what, when) of the origin, the most certain one first."""
    if held:
        return trace.sites[held[0]].label, "a NaN or an infinity is stored", "before anything was computed"
    if fed:
        return trace.sites[fed[0]].label, "a NaN or an infinity is fed", "before anything was computed"
    if first:
        site = trace.sites[first[0]]
        kind = site.facts.get("nonfinite_kind", "NaN or infinity")
        direction = "forward" if site.facts.get("produces") == "forward" else "only in the backward pass"
        return site.label, f"{site.kind} makes the first {kind}", direction
    return "loss", f"the loss is {loss}", "" if math.isfinite(loss) else "from finite activations"


def _remedies(where: str, held: bool, fed: bool) -> tuple[Remedy, ...]:
    if held:
        return (
            Remedy("restore-checkpoint", (where,), "a stored NaN does not go away by training", "advice"),
        )
    if fed:
        return (
            Remedy("clean-input", (where,), "find the samples that hold it, and drop or fill them", "advice"),
        )
    return (
        Remedy(
            "bound-operation",
            (where,),
            "keep its input away from the pole: clamp before, or an epsilon inside",
        ),
        Remedy("stable-function", (where,), "log_softmax, logsumexp, log1p, losses with logits", "advice"),
    )


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
