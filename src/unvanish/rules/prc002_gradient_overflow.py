"""The backward pass overflows in float16, at every loss scale or the model's own, not in float32.

Why it harms

Float16 ends at 65504. An operation whose derivative is formed from numbers beyond it,

    d(1/x)/dx = -1/x^2 = inf   for |x| < 0.004

gives an infinity at any loss scale, and a GradScaler then skips every step, for ever.

An example

    h = torch.reciprocal(1e-3 * (x.abs() + 0.3))     # x in float16: 1/x^2 is above 65504

How it is measured

The model is run in float32, where the gradients are finite, and in its own precision at TRIED loss
scales from the largest that would fit down to 2^-24 of it. Without a scale at which all gradients
are finite and not all zero, the rule fires. It also fires if the gradients of a model in float16
overflow as they are, and a smaller loss would hold them: a GradScaler does not take such models.
Under autocast, where one is usual and finds its scale, that is a note.

Limits

    TRIED = 6   loss scales: from the largest that fits to 2^-24 of it is as far as float16's
                numbers reach below 1

Remedies

Run the operation in float32 (exact). Use bfloat16 (retrain). Bound the operation's input away from
the pole (retrain). Divide a loss that is too large as it is (advice).

When it is wrong

It is not judged if the model cannot be copied and run in float32.

References: Micikevicius et al. 2018; the documentation of torch.amp.GradScaler.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _poles
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import NO_STEP

NEEDS = ("precision", "step")
EXPLAINS = ("NUM001", "INI002", "GRF004", "OPT008", "PRC001")
TRIED = 6


def check(trace: Trace) -> Iterable[Fault]:
    """One fault if no loss scale gives finite gradients in float16."""
    facts = trace.facts.get("precision", {})
    if not facts:
        raise NotApplicable("nothing runs in float16 (bfloat16 and float32 have the range)")
    if "finite_in_float32" not in facts:
        raise NotApplicable("the model could not be run in float32 to compare")
    if not facts["finite_in_float32"]:
        return []
    if not facts.get("nonfinite_native"):
        return [_report_unscaled(trace)] if facts.get("overflow_unscaled") else []
    first = [trace.sites[i] for i in trace.where("node") if trace.sites[i].facts.get("nonfinite_first")]
    where, kind = (first[0].label, first[0].kind) if first else ("", "")
    targets = (where,) if where else ()
    cause = "in float16 no loss scale gives finite gradients, in float32 they are finite"
    scale = float(facts.get("best_scale_log2", math.nan))
    return [
        Fault(
            severity="error",
            cause=f"{cause}; the first infinity is made in {where}" if where else cause,
            sites=targets,
            evidence=(
                Evidence("loss scales tried", TRIED, limit="one with finite gradients"),
                Evidence("best loss scale by the gradients' size", scale, unit="log2", site=where),
            ),
            remedies=(
                Remedy(
                    "keep-float32",
                    targets,
                    "this operation in full precision, the rest in half",
                    safety="exact",
                ),
                *(
                    Remedy("larger-epsilon", targets, care, safety="advice")
                    for care in [_poles.describe_care(kind, half=True)]
                    if "epsilon" in care and kind
                ),
                Remedy("bfloat16", (), "the range of float32 in half the memory"),
            ),
            direction="exploding",
            tier=NO_STEP,
        )
    ]


def _report_unscaled(trace: Trace) -> Fault:
    """The fault of a model in float16 whose loss is too large for it."""
    scale = float(trace.facts.get("precision", {}).get("best_scale_log2", math.nan))
    return Fault(
        severity="error" if trace.facts.get("dtype") == "float16" else "note",
        cause=f"the loss is too large for float16: as it is its gradients overflow, times 2^{scale:.0f} "
        "they are finite",
        sites=("loss",),
        evidence=(Evidence("best loss scale by the gradients' size", scale, unit="log2", limit="> 0"),),
        remedies=(
            Remedy("divide-loss", ("loss",), "a mean instead of a sum, or a smaller weight", "advice"),
            Remedy("bfloat16", (), "the range of float32 in half the memory"),
        ),
        direction="exploding",
        tier=NO_STEP,
    )


def sick() -> Case:
    """A reciprocal of small numbers between two layers."""
    return _case(1e-3)


def healthy() -> Case:
    """The same reciprocal, of numbers of size one."""
    return _case(1.0)


def _case(c: float) -> Case:
    import torch
    from torch import Tensor, nn

    class Steep(nn.Module):
        """c / (c (|x| + 0.3)): a function of size 1 through numbers of size 1/c."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.reciprocal(c * (x.abs() + 0.3)) * c

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), Steep(), nn.Linear(32, 1)).half()
        batch = torch.randn(32, 16).half(), torch.randn(32, 1)

        def loss(output: Tensor, y: Tensor) -> Tensor:
            return (output.float() - y).square().mean()

        return Case(net, batch, loss, story="a reciprocal in float16")
