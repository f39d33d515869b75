"""Gradients flush to zero in float16 at every loss scale: they span more decades than the dtype
has.

Why it harms

Float16 holds numbers from 6e-8 to 65504, twelve decades. What is smaller is zero,

    |g * scale| < 6e-8  ->  0,   while  max |g| * scale < 65504

and a loss scale only moves the window. Where gradients of different parts differ by more than it is
wide, some parts of the model stop learning without a word.

How it is measured

The model is run again in float32. Of the elements that are not zero there, the share that float16
would flush at the largest loss scale that does not overflow: `limit` (default 0.01) is a warning,
ten times that an error. The usable loss scales are stated.

Remedies

Use bfloat16, which has the range of float32 (retrain). Balance the losses of the parts (retrain).
Keep the small parts in float32 (exact).

When it is wrong

Elements that flush may be too small to matter beside others of the same tensor.

References: Micikevicius et al. 2018 (mixed precision training).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _depth

NEEDS = ("precision", "step")
LIVE = True
EXPLAINS = ("GRF004", "INI001")


def check(trace: Trace, *, limit: float = 0.01) -> Iterable[Finding]:
    """One finding where float16 flushes gradients at its best loss scale."""
    if trace.facts.get("live"):
        return _in_a_run(trace, limit)
    facts = trace.facts.get("precision", {})
    if not facts:
        raise NotApplicable("nothing runs in float16 (bfloat16 and float32 have the range)")
    if "flushed" not in facts:
        raise NotApplicable("the model could not be run in float32 to compare")
    share = float(facts["flushed"])
    if not share > limit or facts.get("nonfinite_native"):
        return []
    scale = float(facts["best_scale_log2"])
    flushed = sorted(trace.where("parameter"), key=lambda i: -_or_zero(trace.value(i, "flushed")))
    worst = [i for i in flushed if trace.value(i, "flushed") > limit]
    cause = (
        f"{share:.0%} of the gradients' elements flush to zero in float16 even at the best loss "
        f"scale, 2^{scale:.0f}"
    )
    evidence = (
        Evidence("flushed elements at the best loss scale", share, "", f"< {limit:g}"),
        Evidence("best loss scale", scale, "log2"),
        *(
            Evidence("flushed elements", trace.value(i, "flushed"), "", "", trace.sites[i].label)
            for i in worst[:3]
        ),
    )
    targets = _depth.labels(trace, worst)
    remedies = (
        Remedy("bfloat16", (), "the range of float32 in half the memory"),
        Remedy(
            "balance-losses", targets, "parts whose gradients are of like size fit into one window", "advice"
        ),
        Remedy("keep-float32", targets, "the small parts in full precision", "exact"),
    )
    severity: Severity = "error" if share > 10 * limit else "warning"
    return [
        Finding(
            "PRC001",
            "gradient-underflow",
            severity,
            cause,
            targets,
            evidence,
            remedies,
            "vanishing",
            6 + 10 * share,
        )
    ]


def _in_a_run(trace: Trace, limit: float) -> Iterable[Finding]:
    """Gradients of activations in float16, as a watch saw them: below the normal numbers, or gone."""
    low = [i for i in trace.where("node") if math.isfinite(trace.value(i, "flushed"))]
    if not low:
        raise NotApplicable("nothing runs in float16 (bfloat16 and float32 have the range)")
    bad = sorted(
        (i for i in low if trace.value(i, "flushed") > 50 * limit), key=lambda i: -trace.value(i, "flushed")
    )
    if not bad:
        return []
    share, where = trace.value(bad[0], "flushed"), trace.sites[bad[0]].label
    gone = [i for i in bad if trace.value(i, "backward_zero") == 1]
    cause = f"{share:.0%} of the gradient at {where} is below float16's normal numbers"
    if gone:
        cause = f"the gradient at {trace.sites[gone[0]].label} is all zero in float16"
    evidence = (
        Evidence("below the normal numbers", share, "", f"< {50 * limit:g}", where),
        Evidence("activations affected", len(bad), f"of {len(low)}"),
        Evidence("of them with no gradient left", len(gone)),
    )
    targets = _depth.labels(trace, bad)
    remedies = (
        Remedy("loss-scaling", (), "a GradScaler moves the gradients into float16's window", "exact"),
        Remedy("bfloat16", (), "the range of float32 in half the memory"),
    )
    severity: Severity = "error" if gone else "warning"
    return [
        Finding(
            "PRC001",
            "gradient-underflow",
            severity,
            cause,
            targets,
            evidence,
            remedies,
            "vanishing",
            6 + 10 * share,
        )
    ]


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def sick() -> Case:
    """Two tasks whose losses differ by eleven decades."""
    return _case(1e-11)


def healthy() -> Case:
    """The same two tasks, losses of like size, both times a tiny factor that a loss scale takes back."""
    return _case(1.0, 1e-4)


def _case(weight: float, scale: float = 1.0) -> Case:
    import torch
    from torch import Tensor, nn

    class Towers(nn.Module):
        """Two heads of their own depth."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (
                nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)) for _ in range(2)
            )

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.first(x), self.second(x)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x, y = torch.randn(32, 16), torch.randn(32, 1)

        def loss(output: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
            first, second = ((o.float() - y).square().mean() for o in output)
            return scale * (first + weight * second)

        return Case(Towers().half(), (x.half(), y), loss, story="two tasks in float16")
