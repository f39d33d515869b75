"""The table of tiers: which fault goes first where several are found.

The weight of a finding orders the findings of one severity. It is counted in nats of lost gradient: a loss
that was measured weighs what it is, and every other fault starts at the base of its tier, which is the loss
that it is held equal to. `span` is what a size of 1 adds, so faults of one tier are ordered by their size.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tier:
    """One row of the table: its base and its span in nats, and why it goes before the next row."""

    base: float
    span: float
    why: str

    def weigh(self, size: float) -> float:
        """The weight of a finding of this tier."""
        return self.base + self.span * size


NOT_FINITE = Tier(
    1000.0,
    1.0,
    "a NaN or an infinity spoils all that is computed from it, the other findings' numbers included",
)
CUT = Tier(
    100.0,
    10.0,
    "no gradient on any batch, while a flat operation may pass some on another; size: the share of "
    "the numbers behind the cut",
)
FLAT = Tier(
    80.0,
    1.0,
    "exactly no gradient in any dtype, while an overflow goes away in another; size: the share of the "
    "parameters that starve",
)
NO_STEP = Tier(
    60.0,
    1.0,
    "no part of the model ever takes a step, while behind a dead layer the rest does",
)
DEAD_LAYER = Tier(
    22.0,
    4.0,
    "all layers before one activation starve, not queries and keys alone; size: its share of dead units",
)
BLIND = Tier(
    20.0,
    -10.0,
    "queries and keys get almost nothing, while wrong logits only slow the training; size: the entropy left",
)
LOGITS = Tier(
    12.0,
    1.0,
    "a softmax reads the wrong numbers for every sample, while a flat output is wrong for some",
)
OUTPUT = Tier(
    9.0,
    1.0,
    "the gradient is small from the output on, whatever the data are; size: the nats that its slope takes",
)
DATA = Tier(
    8.0,
    1.0,
    "what enters is out of scale, or the samples are alike, for every weight; size: nats beyond the usual",
)
PRECISION = Tier(
    6.0,
    10.0,
    "a part of the gradient is rounded to zero before the optimizer sees it; size: its share of the elements",
)
STEPS = Tier(
    5.0,
    1.0,
    "the gradient is right and the steps are not, and that goes on; size: nats beyond the limit, or "
    "the share that stands still",
)
START = Tier(
    4.0,
    1.0,
    "a state that training may leave by itself; size: the share of the units, or nats of the logits",
)
SLOW = Tier(
    3.0,
    1.0,
    "the whole model trains, slowly; size: the share of flat units",
)
PART = Tier(
    2.0,
    4.0,
    "a part does not learn, and the rest is not affected; size: the share of dead units",
)
REMARK = Tier(
    1.0,
    1.0,
    "of little harm, or explained by another finding",
)
MEASURED = Tier(
    0.0,
    1.0,
    "a loss that is measured, size in nats: it goes before each tier whose weight it exceeds",
)

TIERS = (
    NOT_FINITE, CUT, FLAT, NO_STEP, DEAD_LAYER, BLIND, LOGITS, OUTPUT, DATA, PRECISION, STEPS, START, SLOW,
    PART, REMARK, MEASURED,
)  # fmt: skip
