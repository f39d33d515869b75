"""The benchmark of cures: its judge does not take chance for harm, and a run that was stopped goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from benchmarks.judge import SOLVED, TRIALS, Side, is_worse, worse
from torch import nn

from benchmarks import cure

BATCH = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3
CE = nn.CrossEntropyLoss()


def net(gain: float) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(gain)
    return made


def test_what_cannot_learn_is_worse_and_learns_better_the_other_way() -> None:
    frozen = net(1.0)
    frozen[0].requires_grad_(False)
    frozen[2].weight.requires_grad_(False)
    assert worse(Side(net(1.0), BATCH, CE), Side(frozen, BATCH, CE))
    assert not worse(Side(frozen, BATCH, CE), Side(net(1.0), BATCH, CE))


def test_only_what_falls_behind_is_tried_again_and_the_median_decides() -> None:
    before, after = Side(net(1.0), BATCH, CE), Side(net(1.0), BATCH, CE)
    assert not worse(before, after)
    assert len(before.runs) == len(after.runs) == 1
    before.runs[0] = (before.runs[0][0], -1.0)  # by chance
    assert not worse(before, after)
    assert len(before.runs) == len(after.runs) == TRIALS
    assert len({last for _, last in after.runs}) == TRIALS


def test_the_rule_of_the_judge() -> None:
    assert is_worse((2.0, 0.1), (2.0, 0.5)) and not is_worse((2.0, 0.1), (2.0, 0.3))
    assert is_worse((2.0, 0.1), (2.0, math.inf)) and not is_worse((2.0, math.inf), (2.0, 1.0))
    assert is_worse((1e30, 0.1), (2.0, 0.5)), "the unit is the smaller first loss"
    small = (1e-6, 1e-7), (1e-6, 5e-7)
    assert not is_worse(*small)
    assert is_worse(*small, solved=SOLVED * 1e-6)
    assert is_worse((1.0, 0.1), (9.0, 8.0), comparable=False)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    done = {"seed": 5, "family": "mlp", "fault": "GRF001", "cured": True, "remedies": ["x"], "seconds": 1.0}
    rows = [json.dumps(done), json.dumps({"seed": 6, "beyond": True}), '{"seed": 7, "fam']
    out.write_text("\n".join(rows))
    found = cure.run([5, 6], others=False, jobs=1, out=out)
    assert [(r.seed, r.cured) for r in found] == [(5, True)]
    assert cure.written(out)[-1]["seed"] == 6
