"""The order of the remedies: a cause before what it explains; numbers, then layers, then the architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.candidates import LAST, RARE, Candidate, propose
from unvanish.clinic.patient import Admission
from unvanish.rules import rules

BOTH = frozenset({"exact", "retrain"})
# The first remedy that is tried on the sick model of a rule: a number, or else the layer a textbook names.
FIRST = {
    "ACT001": ("reinitialise",),
    "ACT002": ("swap-activation", "reinitialise"),
    "ACT003": ("zero-bias",),
    "ACT004": ("drop-less",),
    "ATT001": ("qk-norm",),
    "ATT002": ("pre-normalisation",),
    "DEP001": ("reinitialise",),
    "DEP002": ("scale-branches",),
    "DEP003": ("backward-lsuv",),
    "GRF001": ("remove-detach",),
    "GRF004": ("straight-through",),
    "INI001": ("reinitialise",),
    "INI002": ("reinitialise",),
    "INI003": ("reinitialise",),
    "INP001": ("standardise-input",),
    "INP002": ("standardise-input",),
    "LOS002": ("flip-sign",),
    "NRM001": ("swap-normalisation", "reinitialise"),
    "NRM002": ("pre-normalisation",),
    "NUM001": ("bound-operation",),
    "OPT004": ("add-to-optimizer",),
    "OUT002": ("remove-softmax",),
    "OUT003": ("shrink-output-layer",),
    "OUT004": ("match-target-shape",),
    "OUT005": ("standardise-target",),
    "PRC003": ("keep-float32",),
    "REC001": ("chrono-bias",),
    "REC002": ("orthogonal-recurrence",),
}


def candidates(model: nn.Module, batch: Any, loss: Any, **held: Any) -> list[Candidate]:
    found = unvanish.check(model, batch, loss, confirm=False, theory=False, **held)
    admission = Admission(model, held.get("optimizer"), loss, batch, found, seed=0)
    return list(propose(admission.copy(), BOTH))


@pytest.mark.parametrize("code", FIRST)
def test_the_first_remedy_of_each_kind_is_the_smallest_of_the_textbook(code: str) -> None:
    case = rules()[code].case("sick")
    held = {k: v for k, v in case.options.items() if k == "optimizer"}
    tried = candidates(case.model, case.batch, case.loss, **held)
    assert tried[0].names == FIRST[code]
    assert not {*LAST, *RARE} & {*tried[0].names}
    assert "freeze" not in {name for candidate in tried for name in candidate.names}


def plain_net() -> nn.Module:
    torch.manual_seed(0)
    parts = [p for _ in range(14) for p in (nn.Linear(16, 16), nn.Sigmoid())]
    return nn.Sequential(*parts, nn.Linear(16, 3))


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(32, 16), torch.randint(0, 3, (32,))


def test_against_one_finding_the_architecture_comes_behind_numbers_and_layers() -> None:
    tried = [c.names for c in candidates(plain_net(), batch(), nn.CrossEntropyLoss())]
    first = next(k for k, names in enumerate(tried) if "add-skips" in names)
    for smaller in (("reinitialise",), ("backward-lsuv",), ("insert-normalisation",)):
        assert tried.index(smaller) < first
    assert all({*RARE} & {*names} or "add-skips" in names for names in tried[first : tried.index(("dks",))])


def test_the_cause_is_treated_before_what_it_explains() -> None:
    """Inputs divided twice make the samples alike: a warning, which explains errors."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    x, y = batch()
    assert candidates(net, (x / 255**2, y), nn.CrossEntropyLoss())[0].names == ("standardise-input",)


def test_one_remedy_for_the_whole_model_follows_one_for_the_zeros_that_are_seen() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    for k in (2, 4):
        nn.init.zeros_(net.get_parameter(f"{k}.weight"))
        nn.init.zeros_(net.get_parameter(f"{k}.bias"))
    whole = [c for c in candidates(net, batch(), nn.CrossEntropyLoss()) if c.names == ("reinitialise",)]
    assert whole[0].remedies[0].targets and not whole[1].remedies[0].targets
