"""OUT002 on losses written by hand: probabilities where logits are expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import out002_double_softmax as out002
from unvanish.rules import rule

DOUBLE: dict[str, Any] = {"double": True, "activation": "softmax", "site": "net.3", "logit_max": 0.75}


def build_trace(*losses: tuple[str, dict[str, Any]]) -> Trace:
    sites = tuple(Site.output(kind, 0, facts) for kind, facts in losses)  # type: ignore[arg-type]
    return Trace(sites, np.full((1, len(sites), len(STATISTICS)), math.nan))


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("cross_entropy", "nll_loss of the logarithm"),
        ("binary_cross_entropy_with_logits", "binary_cross_entropy expects"),
    ],
)
def test_the_loss_and_its_replacement_are_named(kind: str, other: str) -> None:
    (found,) = rule("OUT002").check(build_trace((kind, DOUBLE)))
    assert (found.severity, found.direction, found.sites) == ("error", "vanishing", ("net.3",))
    assert found.cause.startswith(f"net.3 makes probabilities by a softmax, but {kind}")
    assert [(e.value, e.limit) for e in found.evidence] == [("softmax", "logits"), (0.75, "")]
    remove, replace = found.remedies
    assert (remove.cure, remove.safety, remove.parameters) == (
        "remove-softmax",
        "retrain",
        {"kind": "softmax"},
    )
    assert replace.safety == "advice" and replace.why.startswith(other)
    assert found.weight == 12  # the base of its tier


def test_the_first_of_several_is_named_and_healthy_losses_are_passed_over() -> None:
    healthy = {**DOUBLE, "double": False, "site": "healthy"}
    trace = build_trace(
        ("cross_entropy", healthy), ("cross_entropy", DOUBLE), ("cross_entropy", {**DOUBLE, "site": "c"})
    )
    (found,) = out002.check(trace)
    assert found.sites == ("net.3",)
    assert list(out002.check(build_trace(("cross_entropy", healthy)))) == []


def test_what_is_unknown_has_a_default() -> None:
    (found,) = out002.check(build_trace(("cross_entropy", {"double": True, "activation": "sigmoid"})))
    assert found.sites == ("loss",)
    assert found.evidence[1].value == 1.0  # the most that a probability can be


def test_losses_that_read_no_logits_are_not_judged() -> None:
    for trace in (build_trace(), build_trace(("mse_loss", DOUBLE))):
        with pytest.raises(NotApplicable, match="no loss that expects logits"):
            out002.check(trace)
