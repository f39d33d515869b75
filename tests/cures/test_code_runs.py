"""The lines of PyTorch of every cure are complete: they run on a fresh model, and do what the cure does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unvanish.clinic.prescription import apply
from unvanish.core.diagnosis import Case, Remedy
from unvanish.cures import cures

IN_FORWARD = {  # where a person edits a forward, a comment says how
    "add-skips", "remove-detach", "swap-activation", "qk-norm",
}  # fmt: skip
NUMBERS = {  # the same weights, whatever is drawn
    "deepnorm", "fixup", "nfnet", "shrink-output-layer", "zero-bias", "admin",
    "zero-init-branches",
}  # fmt: skip
DRAWN = {
    "add-noise",
    "reinitialise",
    "orthogonal-recurrence",
    "chrono-bias",
    "forget-gate-bias",
    "tat",
    "dks",
}
SWAPPED = {"drop-less", "remove-softmax", "swap-normalisation", "swap-output-function"}


def run(case: Case, remedy: Remedy) -> dict[str, Any]:
    """The names that the lines leave, after they ran as a script of the user would."""
    x, y = case.batch if isinstance(case.batch, tuple) else (case.batch, None)
    model = case.model
    names = {
        "torch": torch, "nn": nn, "model": model, "x": x, "y": y, "loss_fn": case.loss,
        "optimizer": torch.optim.SGD(list(model.parameters())[:1], 1e-3),
    }  # fmt: skip
    torch.manual_seed(0)
    exec("\n".join(cures()[remedy.cure].code(remedy)), names)
    return names


@pytest.mark.parametrize("name", list(cures()))
def test_the_lines_run_and_the_model_runs_after_them(name: str) -> None:
    case, remedy = cures()[name].case()
    lines = cures()[name].code(remedy)
    assert any(not line.strip().startswith("#") for line in lines) or name in IN_FORWARD
    assert not any("..." in line for line in lines if not line.strip().startswith("#"))
    names = run(case, remedy)
    x = names["x"].to(next(case.model.parameters()).dtype) if names["x"].is_floating_point() else names["x"]
    given = (case.model(x),) if names["y"] is None else (case.model(x), names["y"])
    value = names["loss"] if "loss" in names else (case.loss or torch.sum)(*given)
    assert isinstance(value, Tensor) and bool(torch.isfinite(value)), name


def treated(name: str) -> tuple[nn.Module, nn.Module]:
    """The model by the cure and by its lines, from one start."""
    case, remedy = cures()[name].case()
    by_hand = Case(copy.deepcopy(case.model), case.batch, case.loss)
    apply(case.model, [remedy], batch=case.batch, loss=case.loss)
    run(by_hand, remedy)
    return case.model, by_hand.model


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_the_lines_set_the_numbers_that_the_cure_sets(name: str) -> None:
    ours, theirs = treated(name)
    for (path, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5), path


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_the_lines_draw_weights_of_the_size_that_the_cure_draws(name: str) -> None:
    ours, theirs = treated(name)
    for (path, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert float(a.detach().norm()) == pytest.approx(float(b.detach().norm()), rel=0.3, abs=0.05), path


@pytest.mark.parametrize("name", sorted(SWAPPED))
def test_the_lines_swap_the_modules_that_the_cure_swaps(name: str) -> None:
    ours, theirs = treated(name)
    for (path, a), (_, b) in zip(ours.named_modules(), theirs.named_modules(), strict=True):
        assert type(a).__name__.replace("Channel", "Group") == type(b).__name__, path
        assert getattr(a, "p", 0) == getattr(b, "p", 0)


def test_what_was_standardised_by_hand_is_what_the_cure_gives_the_model() -> None:
    case, remedy = cures()["standardise-input"].case()
    plain = copy.deepcopy(case.model)
    x = run(Case(plain, case.batch, case.loss), remedy)["x"]
    apply(case.model, [remedy])
    assert torch.allclose(plain(x), case.model(case.batch[0]), atol=1e-4)
    uneven = Remedy(
        "standardise-input", (), "", parameters={"means": [1.0] * 16, "stds": [50.0] * 16, "bound": 3.0}
    )
    case, _ = cures()["standardise-input"].case()
    plain = copy.deepcopy(case.model)
    x = run(Case(plain, case.batch, case.loss), uneven)["x"]
    apply(case.model, [uneven])
    assert torch.allclose(plain(x), case.model(case.batch[0]), atol=1e-4)


def test_a_normalisation_by_hand_gives_what_the_cure_gives() -> None:
    case, _ = cures()["insert-normalisation"].case()
    for kind in ("batch", "layer", "rms", "group"):
        remedy = Remedy("insert-normalisation", ("0", "2"), "", parameters={"kind": kind})
        ours, theirs = copy.deepcopy(case.model), copy.deepcopy(case.model)
        apply(ours, [remedy])
        run(Case(theirs, case.batch, case.loss), remedy)
        assert torch.allclose(ours(case.batch[0]), theirs(case.batch[0]), atol=1e-5), kind
