"""OPT004 on traces written by hand: which parameters the optimizer lacks, and what share of the numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.facts import ParameterFacts
from unvanish.core.trace import Site, Trace
from unvanish.rules import rule


def _judge(*facts: ParameterFacts) -> list[Finding]:
    sites = tuple(
        Site.parameter(f"p{i}", "Linear", {"trainable": True, "numel": 10, **f}) for i, f in enumerate(facts)
    )
    return rule("OPT004").check(Trace(sites, np.zeros((1, len(sites), 1)), statistics=("weight_log",)))


def test_what_the_optimizer_lacks_is_named_with_its_share() -> None:
    frozen: ParameterFacts = {"trainable": False, "optimised": False, "numel": 500}
    (found,) = _judge({"optimised": True}, {"optimised": False, "numel": 30}, {"optimised": None}, frozen)
    assert found.severity == "error" and found.direction == "blocked" and found.sites == ("p1",)
    assert found.cause == ("the optimizer does not hold 1 of 3 trainable parameters, 60% of the numbers")
    assert [(e.value, e.unit, e.limit) for e in found.evidence] == [(1, "of 3", "0"), (0.6, "", "")]
    assert found.weight == pytest.approx(5.6)
    assert [(r.cure, r.targets, r.safety) for r in found.remedies] == [
        ("add-to-optimizer", ("p1",), "retrain"), ("freeze", ("p1",), "advice"),
    ]  # fmt: skip


def test_at_most_twelve_are_named() -> None:
    (found,) = _judge(*[{"optimised": False}] * 14)
    assert found.sites == tuple(f"p{i}" for i in range(12)) and found.evidence[0].value == 14
    assert found.evidence[1].value == 1.0


def test_parameters_without_numbers_have_no_share() -> None:
    (found,) = _judge({"optimised": False, "numel": 0})
    assert found.evidence[1].value == 0.0 and found.weight == 5.0


def test_an_optimizer_with_all_parameters_is_no_fault() -> None:
    assert _judge({"optimised": True}, {"optimised": True}) == []
    assert _judge({"optimised": True}, {"optimised": False, "trainable": False}) == []


@pytest.mark.parametrize("facts", [[], [{"optimised": None}, {}], [{"trainable": False, "optimised": False}]])
def test_without_an_optimizer_there_is_nothing_to_judge(facts: list[ParameterFacts]) -> None:
    with pytest.raises(NotApplicable, match="pass optimizer="):
        _judge(*facts)


def test_an_optimizer_that_holds_nothing_of_the_model_says_so_and_what_it_holds() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    other = copy.deepcopy(net)
    batch = torch.randn(8, 4), torch.randint(0, 3, (8,))
    diagnosis = unvanish.check(
        net,
        batch,
        nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(other.parameters(), lr=0.1),
        confirm=False,
    )
    (found,) = [f for f in diagnosis.findings if f.code == "OPT004"]
    assert found.cause == (
        "the optimizer holds none of the 4 trainable parameters, so nothing is trained; it holds 4 tensors "
        "of their shapes that are not the model's, as if these were made anew after it"
    )


def test_a_replaced_layer_is_told_from_a_forgotten_one() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net[2] = nn.Linear(8, 3)
    batch = torch.randn(8, 4), torch.randint(0, 3, (8,))
    diagnosis = unvanish.check(net, batch, nn.CrossEntropyLoss(), optimizer=optimizer, confirm=False)
    assert "2 of 4" in diagnosis.findings[0].cause and "made anew" in diagnosis.findings[0].cause


def test_a_cure_of_an_optimizer_that_holds_nothing_gives_it_the_parameters() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(copy.deepcopy(net).parameters())
    batch = torch.randn(16, 4), torch.randint(0, 3, (16,))
    cured = unvanish.cure(net, batch, nn.CrossEntropyLoss(), optimizer=optimizer)
    assert cured.prescription is not None
    assert [r.cure for r in cured.prescription.remedies] == ["add-to-optimizer"]
