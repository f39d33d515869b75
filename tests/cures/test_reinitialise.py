"""New weights where a module computes its weight of others: measured, cured, undone, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import unvanish
from unvanish.clinic.prescription import apply
from unvanish.core.diagnosis import Diagnosis, Remedy
from unvanish.cures import reinitialise

LOSS = nn.CrossEntropyLoss()


def deep(norm: object, layers: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    assert callable(norm)
    parts = [p for _ in range(layers) for p in (norm(nn.Linear(32, 32)), nn.ReLU())]
    return nn.Sequential(*parts, nn.Linear(32, 4))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(24, 32), torch.randint(0, 4, (24,))


def checked(net: nn.Module) -> Diagnosis:
    return unvanish.check(net, batch(), LOSS)


def test_the_experiment_scales_a_weight_that_is_computed() -> None:
    found = checked(deep(weight_norm)).findings[0]
    assert found.code == "INI001" and found.confirmed


def test_a_weight_that_no_scale_reaches_is_only_indicated() -> None:
    found = checked(deep(spectral_norm, layers=16)).findings[0]
    assert found.code == "INI001" and found.confirmed is False


def test_a_cure_sets_it_and_can_be_undone() -> None:
    net = deep(weight_norm)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    names = tuple(f"{2 * k}.weight" for k in range(12))
    remedy = Remedy("reinitialise", names, "", "retrain", {"gain": 2**0.5, "parametrized": True})
    receipt = apply(net, [remedy])
    assert float(net[2].weight.detach().std()) == pytest.approx((2 / 32) ** 0.5, rel=0.1)  # type: ignore[operator,union-attr]
    assert not checked(net).codes()
    receipt.undo()
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())


def test_the_remedy_names_it_and_its_lines_run() -> None:
    net = deep(weight_norm)
    found = checked(net)
    wanted = next(r for r in found.findings[0].remedies if r.cure == "reinitialise")
    planned = [r for r in reinitialise.plan(found.trace, wanted) if r.parameters.get("parametrized")]
    assert {n for r in planned for n in r.targets} == {f"{2 * k}.weight" for k in range(12)}
    for remedy in planned:
        lines = [line for line in reinitialise.code(remedy) if not line.strip().startswith("#")]
        names = f"names = {list(remedy.targets)}"
        text = "\n".join(names if line.startswith("names =") else line for line in lines)
        exec(text, {"model": net, "nn": nn, "torch": torch})
    assert float(net[4].weight.detach().std()) == pytest.approx((2 / 32) ** 0.5, rel=0.1)  # type: ignore[operator,union-attr]
