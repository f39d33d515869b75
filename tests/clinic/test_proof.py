"""The verdict of a proof: rules, total and training must agree."""

from __future__ import annotations

import math
from typing import Any

import pytest

from unvanish.clinic.proof import conclude
from unvanish.core.cured import Proof


def test_a_proof_is_better_only_where_all_agree() -> None:
    def outcome(*facts: Any, **training: Any) -> str:
        return conclude(Proof(*facts, **training)).outcome

    assert outcome(("ACT002",), (), -10.0, -0.2, training="better") == "better"
    assert outcome(("ACT002",), (), -10.0, -0.2, training="worse") == "worse"
    assert outcome(("ACT002",), ("INI002",), -10.0, -0.2, training="better") == "worse"
    assert outcome(("ACT002",), (), -2.0, 5.0, training="better") == "worse"
    assert outcome(("ACT002",), ("ACT002",), -10.0, -10.0) == "no effect"
    assert outcome(("ACT002",), (), -10.0, -0.2) == "better"


def test_fewer_findings_are_no_proof_if_training_shows_that_nothing_became_better() -> None:
    proof = Proof(("ACT002",), (), -10.0, -0.2, training="better")
    assert conclude(proof, idle=True).outcome == "no effect"


@pytest.mark.parametrize(
    ("codes", "before", "after", "nearer"),
    [
        (("ACT002",), -10.0, 9.9, True),
        (("ACT002",), -10.0, 10.1, False),
        (("ACT002",), -0.1, 1.3, True),  # 3 nats always train
        (("ACT002",), -0.1, 1.4, False),
        (("NUM001",), 0.0, 50.0, True),  # what was not finite had no total
        (("ACT002",), math.nan, 50.0, True),
        (("ACT002",), -10.0, math.nan, True),
    ],
)
def test_a_total_moves_towards_zero_or_is_small(
    codes: Any, before: float, after: float, nearer: bool
) -> None:
    proof = conclude(Proof(codes, (), before, after, training="better"))
    assert proof.towards_zero == nearer
    assert proof.outcome == ("better" if nearer else "worse")
