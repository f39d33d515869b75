"""Gradients flush to zero in float16 at every loss scale: they span more decades than the dtype
has.

Why it harms

Float16 holds numbers from 6e-8 to 65504, twelve decades. What is smaller is zero,

    |g * scale| < 6e-8  ->  0,   while  max |g| * scale < 65504

and a loss scale only moves the window. If gradients of different parts differ by more than it is
wide, some parts of the model stop learning without a word.

An example

    net.half()
    loss = first_loss + 1e-11 * second_loss      # no scale fits both into twelve decades

How it is measured

The model is run again in float32. Of the elements that are not zero there, the share that float16
would flush at the largest loss scale that does not overflow: above `limit` it is a warning, far
above it an error. The usable loss scales are stated. In a watched run the share of the gradient of
each activation that is below float16's normal numbers is a warning, and an error if all is gone.

Limits

    limit = 0.01     of the elements: one in a hundred is lost without harm to the norm
    FAR = 10         times the limit is an error: a tenth of the elements
    SUBNORMAL = 50   times the limit in a watched run, half of the elements, since numbers below
                     the normal ones are not lost yet

Remedies

Use bfloat16, which has the range of float32 (retrain). Balance the losses of the parts (retrain).
Keep the small parts in float32 (exact).

When it is wrong

Elements that flush may be too small to matter next to others of the same tensor.

References: Micikevicius et al. 2018 (mixed precision training).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import PRECISION

NEEDS = ("precision", "step")
LIVE = True
EXPLAINS = ("GRF004", "INI001")
FAR = 10
SUBNORMAL = 50
FULL_RANGE = "nothing runs in float16 (bfloat16 and float32 have the range)"


def check(trace: Trace, *, limit: float = 0.01) -> Iterable[Fault]:
    """One fault if float16 flushes gradients at its best loss scale."""
    if trace.facts.get("live"):
        return _judge_look(trace, SUBNORMAL * limit)
    facts = trace.facts.get("precision", {})
    if not facts:
        raise NotApplicable(FULL_RANGE)
    if "flushed" not in facts:
        raise NotApplicable("the model could not be run in float32 to compare")
    share = float(facts["flushed"])
    if not share > limit or facts.get("nonfinite_native"):
        return []
    scale = float(facts["best_scale_log2"])
    worst = _flushed(trace, trace.where("parameter"), limit)
    targets = _places.label(trace, worst)
    return [
        Fault(
            severity="error" if share > FAR * limit else "warning",
            cause=f"{share:.0%} of the gradients' elements flush to zero in float16 even at the best loss "
            f"scale, 2^{scale:.0f}",
            sites=targets,
            evidence=(
                Evidence("flushed elements at the best loss scale", share, limit=f"< {limit:g}"),
                Evidence("best loss scale", scale, unit="log2"),
                *(
                    Evidence("flushed elements", trace.value(i, "flushed"), site=trace.sites[i].label)
                    for i in worst[: _places.FIRST]
                ),
            ),
            remedies=(
                Remedy("bfloat16", (), "the range of float32 in half the memory"),
                Remedy(
                    "balance-losses",
                    targets,
                    "parts whose gradients are of like size fit into one window",
                    safety="advice",
                ),
                Remedy("keep-float32", targets, "the small parts in full precision", safety="exact"),
            ),
            direction="vanishing",
            tier=PRECISION,
            size=share,
        )
    ]


def _flushed(trace: Trace, places: Iterable[int], limit: float) -> list[int]:
    """The places that lose a larger share than the limit, the largest first."""
    found = [i for i in places if trace.value(i, "flushed") > limit]
    return sorted(found, key=lambda i: -trace.value(i, "flushed"))


def _judge_look(trace: Trace, limit: float) -> list[Fault]:
    """The gradients of activations in a watched run that are below float16's normal numbers, or gone."""
    low = [i for i in trace.where("node") if math.isfinite(trace.value(i, "flushed"))]
    if not low:
        raise NotApplicable(FULL_RANGE)
    bad = _flushed(trace, low, limit)
    if not bad:
        return []
    share, where = trace.value(bad[0], "flushed"), trace.sites[bad[0]].label
    gone = [i for i in bad if trace.value(i, "backward_zero") == 1]
    cause = f"{share:.0%} of the gradient at {where} is below float16's normal numbers"
    if gone:
        cause = f"the gradient at {trace.sites[gone[0]].label} is all zero in float16"
    return [
        Fault(
            severity="error" if gone else "warning",
            cause=cause,
            sites=_places.label(trace, bad),
            evidence=(
                Evidence("below the normal numbers", share, limit=f"< {limit:g}", site=where),
                Evidence("activations affected", len(bad), unit=f"of {len(low)}"),
                Evidence("of them with no gradient left", len(gone)),
            ),
            remedies=(
                Remedy(
                    "loss-scaling",
                    (),
                    "a GradScaler moves the gradients into float16's window",
                    safety="exact",
                ),
                Remedy("bfloat16", (), "the range of float32 in half the memory"),
            ),
            direction="vanishing",
            tier=PRECISION,
            size=share,
        )
    ]


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
