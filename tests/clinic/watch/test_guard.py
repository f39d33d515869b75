"""What fails inside a watch is one warning; the program goes on, and nothing is left hanging in it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

import unvanish
from unvanish.clinic.watch import Watch, WatchError, optimizers
from unvanish.clinic.watch.observer import Observer
from unvanish.probes.live.gauge import Gauge
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.samples import Samples
from unvanish.store import open_run


def small() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, torch.optim.Adam(model.parameters())


def run(model: nn.Module, optimizer: Any, steps: int = 3, value: float = 1.0) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = model(torch.full((4, 8), value)).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def fail(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError("planted")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Gauge, "read"),
        (Samples, "take"),
        (Samples, "take_gradient"),
        (Observer, "after_step"),
        (Observer, "_judge_look"),
        (Observer, "__init__"),
        (Observer, "finish"),
    ],
)
def test_a_failure_inside_is_one_warning_that_names_the_place(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch, hooks: Any
) -> None:
    wanted = run(*small())
    monkeypatch.setattr(owner, name, fail)
    model, optimizer = small()
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError: planted, at unvanish/") as told:
        with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
            assert run(model, optimizer) == wanted
            if name != "finish":
                assert hooks(model) == 0 and not optimizer._optimizer_step_pre_hooks
                assert not optimizer._optimizer_step_post_hooks and not _global_optimizer_post_hooks
        watch.step(1.0)
        assert "failed: ZeroDivisionError" in repr(watch)
        assert str(watch.diagnosis()) and watch.healthy and "planted" in watch.guard.traceback
    assert len(told) == 1 and "report" in str(told[0].message)


def test_where_warnings_are_errors_it_is_a_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Gauge, "read", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, optimizer = small()
        with unvanish.watch(model, optimizer, every=1):
            run(model, optimizer)
    assert "took itself off" in capsys.readouterr().err
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, optimizer = small()
        with unvanish.watch(model, optimizer, every=1, on_finding="warn"):
            run(model, optimizer, value=float("nan"))
    assert "NUM001" in capsys.readouterr().err


def test_step_hooks_come_off_though_others_follow_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gauge, "read", fail)
    model, optimizer = small()
    heard: list[str] = []
    unvanish.watch(model, optimizer, every=1, on_finding="silent")
    optimizer.register_step_pre_hook(lambda *_: heard.append("before"))
    optimizer.register_step_post_hook(lambda *_: heard.append("after"))
    with pytest.warns(RuntimeWarning, match="took itself off"):
        run(model, optimizer, 2)
    assert heard == 2 * ["before", "after"]
    assert len(optimizer._optimizer_step_pre_hooks) == len(optimizer._optimizer_step_post_hooks) == 1


@pytest.mark.parametrize("name", ["before_step", "after_step"])
def test_two_watches_that_fail_in_one_step_end_no_training(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = run(*small())
    model, optimizer = small()
    both = [unvanish.watch(part, optimizer, on_finding="silent") for part in (model, model[2])]  # type: ignore[index]
    monkeypatch.setattr(Observer, name, fail)
    with pytest.warns(RuntimeWarning, match="took itself off"):
        assert run(model, optimizer) == wanted
    assert all(watch.failure for watch in both)
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert not _global_optimizer_pre_hooks and not _global_optimizer_post_hooks


def test_a_watch_that_fails_at_the_step_of_another_training_ends_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = run(*small())
    watched, later = [small() for _ in range(2)], small()
    watches = [unvanish.watch(*pair, on_finding="silent") for pair in watched]
    monkeypatch.setattr(optimizers, "holds_some", fail)
    with pytest.warns(RuntimeWarning, match="took itself off"):
        assert run(*later) == wanted
    assert all(watch.failure for watch in watches) and run(*watched[0]) == wanted
    assert not _global_optimizer_pre_hooks and not _global_optimizer_post_hooks


def test_a_watch_that_failed_at_its_first_step_does_not_say_that_none_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Observer, "_close_step", fail)
    model, optimizer = small()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with unvanish.watch(model, optimizer, every=1, on_finding="warn") as watch:
            run(model, optimizer)
    assert len(told) == 1 and "took itself off" in str(told[0].message)
    assert not any("no step" in note for note in watch.notes)


@pytest.mark.parametrize("before", [True, False])
def test_gradients_are_on_or_off_as_before_a_failure(before: bool) -> None:
    def work() -> None:
        torch.set_grad_enabled(not before)
        raise RuntimeError("in the midst of a block")

    guard = WatchGuard("a watch")
    with torch.set_grad_enabled(before), pytest.warns(RuntimeWarning, match="failed inside itself"):
        guard.run(work)
        assert torch.is_grad_enabled() is before


def test_a_watch_may_be_closed_from_within() -> None:
    model, optimizer = small()
    watch = unvanish.watch(model, optimizer, every=1, on_finding=lambda f: watch.close())
    optimizer.register_step_pre_hook(lambda *_: None)
    run(model, optimizer, value=float("nan"))
    assert watch.findings and watch.failure == "" and len(optimizer._optimizer_step_pre_hooks) == 1


def test_what_the_user_s_function_raises_is_a_warning_unless_it_is_meant_to_end_the_run() -> None:
    model, optimizer = small()
    with (
        pytest.warns(RuntimeWarning, match="fail.*ZeroDivisionError: planted"),
        unvanish.watch(model, optimizer, every=1, on_finding=fail) as watch,
    ):
        run(model, optimizer, value=float("nan"))
    assert watch.failure == "" and watch.steps == 3
    for error in (WatchError("enough", None), KeyboardInterrupt()):  # type: ignore[arg-type]

        def end(finding: Any, error: BaseException = error) -> None:
            raise error

        model, optimizer = small()
        with pytest.raises(type(error)), unvanish.watch(model, optimizer, every=1, on_finding=end):
            run(model, optimizer, value=float("nan"))


def test_an_error_of_the_program_s_operation_passes_as_it_is() -> None:
    model, optimizer = small()
    with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model(torch.ones(4, 7))
        run(model, optimizer)
    assert watch.failure == ""


@pytest.mark.parametrize("bound", [False, True])
def test_an_unclosed_watch_ends_with_its_optimizer(bound: bool, hooks: Any, tmp_path: Path) -> None:
    model, optimizer = small()
    loss_function, scaler = nn.MSELoss(), torch.amp.GradScaler("cpu")
    watch = unvanish.watch(
        model,
        optimizer,
        loss_function,
        scaler=scaler,
        run=tmp_path,
        every=1,
        on_finding=["silent", "snapshot"],
    )
    run(model, optimizer)
    known = weakref.ref(watch), weakref.ref(optimizer)
    gc.disable()
    try:
        if bound:
            del optimizer
            assert known[1]() is None  # a watch keeps no optimizer alive
        del watch
        if not bound:
            assert known[0]() is not None  # an optimizer keeps its watch alive
            run(model, optimizer, 1)
            del optimizer
        assert known[0]() is None
    finally:
        gc.enable()
    assert hooks(model) == 0 and not loss_function._forward_hooks and "step" not in vars(scaler)
    assert len(open_run(tmp_path).steps()["step"]) == 3 + (not bound)


def test_the_record_of_an_unclosed_watch_is_written_at_exit(tmp_path: Path) -> None:
    text = f"""
import torch, unvanish
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
watch = unvanish.watch(model, optimizer, run={str(tmp_path / "run")!r}, on_finding="silent")
for _ in range(7):
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
"""
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stderr == ""
    assert len(open_run(tmp_path / "run").steps()["step"]) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_process_is_not_watched(tmp_path: Path) -> None:
    model, optimizer = small()
    with unvanish.watch(model, optimizer, run=tmp_path, every=1, on_finding="silent") as watch:
        run(model, optimizer, 2)
        loader = torch.utils.data.DataLoader(list(range(4)), num_workers=1, multiprocessing_context="fork")
        assert len(list(loader)) == 4
        child = os.fork()
        if not child:
            free = not optimizer._optimizer_step_pre_hooks
            run(model, optimizer, 3)
            watch.close()
            os._exit(0 if free else 1)
        assert os.waitpid(child, 0)[1] == 0
        run(model, optimizer, 2)
    assert len(open_run(tmp_path).steps()["step"]) == 4


def test_what_is_left_out_is_said_once_and_stands_in_the_run(tmp_path: Path) -> None:
    model, optimizer = small()
    model.compile(backend="eager")
    with unvanish.watch(model, optimizer, run=tmp_path, every=1, on_finding="silent") as watch:
        run(model, optimizer)
        watch.step("not a number")
        watch.step("not a number")
    assert len(watch.notes) == 2 and "compiled" in watch.notes[0] and "str" in watch.notes[1]
    assert list(open_run(tmp_path).facts()["notes"]) == watch.notes


def test_a_fresh_watch_prints_its_diagnosis() -> None:
    model, optimizer = small()
    with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
        assert str(watch.diagnosis())
        run(model, optimizer)
        text = str(watch.diagnosis())
        run(model, optimizer, value=float("nan"))
        sick = str(watch.diagnosis())
    assert "unvanish: Sequential" in text and "NUM001" in sick
    assert isinstance(watch, Watch)


def test_a_guard_without_an_owner_does_nothing() -> None:
    guard = WatchGuard("a test")
    assert guard.run(lambda: 3) == 3
    with pytest.warns(RuntimeWarning, match="a test failed inside itself"):
        assert guard.run(fail) is None
    assert guard.run(lambda: 3) is None and guard.run_anyway(lambda: 3) == 3


def test_a_watch_that_nothing_holds_is_closed_when_the_next_one_comes() -> None:
    net = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def attach() -> weakref.ref[Any]:
        return weakref.ref(unvanish.watch(net, optimizer, on_finding="silent"))

    first = attach()
    gc.collect()
    assert first() is not None, "its optimizer holds it: nobody has to keep what `watch` returns"
    second = attach()
    assert first() is None and second() is not None
    with unvanish.watch(net, optimizer, on_finding="silent") as held:
        kept = [unvanish.watch(net, optimizer, on_finding="silent")]
        attach()
        assert second() is None
        assert len(optimizer._optimizer_step_pre_hooks) == 3 and not held.failure and not kept[0].failure


def test_a_watch_that_is_replaced_under_its_name_is_closed_at_the_first_step_of_the_next(hooks: Any) -> None:
    model, optimizer = small()
    heard: list[str] = []
    for _ in range(
        4
    ):  # a cell that runs again: the name still holds the watch before, until it has the new one
        watch = unvanish.watch(model, optimizer, every=1, on_finding="silent")
        optimizer.register_step_pre_hook(lambda *_: heard.append("before"))
        run(model, optimizer, 2)
    assert len(optimizer._optimizer_step_pre_hooks) == 1 + 4 and heard == ["before"] * 2 * (1 + 2 + 3 + 4)
    assert watch.steps == 2 and any("earlier watch" in note for note in watch.notes)
    other = unvanish.watch(model, optimizer, every=1, on_finding="silent")
    run(model, optimizer, 2)
    assert watch.steps == 4 and other.steps == 2  # two that are held both go on
    watch.close()
    other.close()
    assert hooks(model) == 0 and len(optimizer._optimizer_step_pre_hooks) == 4
