"""Quiet steps: few numbers, no look; anything that is not ordinary is handled in the ordinary way at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.watch.errors import WatchError
from unvanish.clinic.watch.front import Watch
from unvanish.store import open_run

NOTHING = "silent"


def train(
    steps: int,
    change: Callable[[int, nn.Module, Any], None] = lambda *_: None,
    watched: bool = True,
    **options: Any,
) -> tuple[list[float], Watch | None]:
    """A small training; `change` is called before each step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    options = {"every": 10_000, "on_finding": NOTHING, **options}
    watch = unvanish.watch(model, optimizer, **options) if watched else None
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    losses = []
    for step in range(steps):
        change(step, model, optimizer)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, watch


def test_quiet_steps_are_recorded_as_all_others(tmp_path: Path) -> None:
    losses, watch = train(90, run=tmp_path)
    assert watch is not None and watch._observer is not None and watch._observer.quiet.open
    watch.close()
    assert losses == train(90, watched=False)[0]
    steps = open_run(tmp_path).steps()
    assert steps["step"].tolist() == list(range(90))
    assert steps["loss"].tolist() == losses
    assert steps["lr"].tolist() == [0.05] * 90 and (steps["finite"] == 1).all()
    rows = watch.history.steps.rows
    assert sum(not math.isnan(row["still"]) for row in rows) >= 60  # weights are read in turn
    kept = [row["kept"] for row in rows[5:]]  # `zero_grad` was called
    assert kept[:50] == [0.0] * 50 and all(k == 0.0 or math.isnan(k) for k in kept)
    assert watch.pace.steps == 89 and not watch.failure


def test_a_few_functions_of_ours_run_in_a_quiet_step() -> None:
    import sys

    called: list[str] = []

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call" and "unvanish" in frame.f_code.co_filename:
            called.append(frame.f_code.co_qualname)

    def change(step: int, *_: Any) -> None:
        if step in (201, 202):
            sys.setprofile(count if step == 201 else None)

    _, watch = train(203, change)
    assert watch is not None and len(called) <= 40, called
    watch.close()


def test_what_is_not_finite_raises_before_its_step() -> None:
    def change(step: int, model: nn.Module, _: Any) -> None:
        if step == 77:
            model.register_forward_hook(lambda _m, _a, out: out * math.nan)

    weights: list[Tensor] = []
    with pytest.raises(WatchError) as caught:
        train(90, lambda s, m, o: (change(s, m, o), weights.append(m[0].weight)), on_finding="raise")  # type: ignore[index]
    assert "step 77" in str(caught.value) and bool(weights[0].isfinite().all())


def test_a_rate_that_jumps_is_judged_soon() -> None:
    def change(step: int, _: nn.Module, optimizer: Any) -> None:
        if step == 700:
            optimizer.param_groups[0]["lr"] *= 20

    _, watch = train(706, change)
    assert watch is not None and watch._observer is not None
    verdicts = watch._observer.judge.verdicts
    assert verdicts.jumped == 700 and 704 <= verdicts.next <= 712
    watch.close()


def test_a_loss_that_the_program_names_is_that_of_its_step() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, every=10_000, on_finding=NOTHING) as watch:
        for step in range(40):
            optimizer.zero_grad()
            model(torch.randn(3, 4)).square().mean().backward()
            optimizer.step()
            watch.step(torch.tensor(float(step)))
    assert [row["loss"] for row in watch.history.steps.rows] == [float(k) for k in range(40)]


@pytest.mark.parametrize("other", ["closure", "mode", "none"])
def test_a_step_of_another_kind_goes_the_ordinary_way(other: str) -> None:
    from torch.overrides import TorchFunctionMode

    class Counting(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return function(*args, **(kwargs or {}))

    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(3, 4)

    def backward() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with unvanish.watch(model, optimizer, every=10_000, on_finding=NOTHING) as watch:
        for step in range(40):
            if step % 5 == 4 and other == "closure":
                optimizer.step(backward)  # type: ignore[arg-type]
            elif step % 5 == 4 and other == "mode":
                with Counting():
                    backward()
                    optimizer.step()
            elif step % 5 == 4:
                optimizer.zero_grad()
                optimizer.step()  # without any gradient
            else:
                backward()
                optimizer.step()
    rows = watch.history.steps.rows
    assert [int(row["step"]) for row in rows] == list(range(40)) and not watch.failure
    zero = [row["step"] for row in rows if row["norm_log"] == -math.inf]
    assert zero == ([float(k) for k in range(4, 40, 5)] if other == "none" else [])
