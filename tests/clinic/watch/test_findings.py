"""What a watch finds is reported once, at its step, as was asked for; the run folder holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.clinic.watch import LIVE, WatchError
from unvanish.probes.errors import CheckError
from unvanish.store import open_run


def test_a_run_folder_holds_the_story_and_is_continued(tmp_path: Path, net: Any, fit: Any) -> None:
    losses, _ = fit(net(), 5, look={"every": 1, "run": tmp_path, "on_finding": "silent"})
    run = open_run(tmp_path)
    assert run.steps()["step"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(run.steps()["loss"], losses, rtol=1e-6)
    assert run.trace().values.shape[0] == 5 and run.trace().statistics == LIVE
    assert run.facts()["model"] == "Net" and run.trace().depth() is not None
    fit(net(), 3, look={"every": 1, "run": tmp_path, "on_finding": "silent"})
    assert open_run(tmp_path).steps()["step"].tolist() == list(range(8))


def test_a_nan_is_named_at_its_step(capsys: Any, net: Any, poisoned: Any) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    with unvanish.watch(model, optimizer, every=4) as watch:
        poisoned(model, optimizer, watch)
    (finding,) = watch.findings
    assert finding.code == "NUM001" and "at step 6" in finding.cause
    assert "the last healthy step was 5" in finding.cause
    said = capsys.readouterr().err
    assert said.count("error[NUM001]") == 1 and "guard" in said


def test_it_can_warn_raise_and_call(net: Any, hooks: Any, poisoned: Any) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    heard: list[Any] = []
    with (
        pytest.warns(RuntimeWarning, match="NUM001"),
        unvanish.watch(model, optimizer, every=1, on_finding=["warn", heard.append]) as watch,
    ):
        poisoned(model, optimizer, watch)
    assert [f.code for f in heard] == ["NUM001"]
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    with (
        pytest.raises(WatchError, match="NUM001") as error,
        unvanish.watch(model, optimizer, every=1, on_finding="raise") as watch,
    ):
        poisoned(model, optimizer, watch)
    assert error.value.finding.code == "NUM001"
    assert all(torch.isfinite(p).all() for p in model.parameters())  # raised before the step was made
    assert hooks(model) == 0


def test_a_guard_leaves_the_bad_step_out(net: Any, poisoned: Any) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    with unvanish.watch(model, optimizer, every=4, on_finding=["silent", "guard"]) as watch:
        poisoned(model, optimizer, watch)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert watch.response.clipper is not None and watch.response.clipper.skipped == 1


def test_a_snapshot_replays_the_bad_step(tmp_path: Path, net: Any, poisoned: Any) -> None:
    model, criterion = net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    with unvanish.watch(
        model, optimizer, criterion, run=tmp_path, every=4, on_finding=["silent", "snapshot"]
    ) as watch:
        poisoned(model, optimizer, watch)
    assert watch.response.snapshots is not None
    (path,) = watch.response.snapshots.paths
    held = torch.load(path, weights_only=True)
    assert held["step"] == 6 and held["loss"] == "CrossEntropyLoss"
    again = net()
    again.load_state_dict(held["weights"])
    assert all(torch.isfinite(p).all() for p in again.parameters())
    diagnosis = unvanish.check(again, (held["args"][0], held["target"]), criterion)
    assert diagnosis.findings[0].code == "NUM001"
    assert len(list((tmp_path / "snapshots").iterdir())) == 1


def test_a_finding_is_reported_once_and_after_three_looks() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    x, y = torch.randn(32, 8), torch.randint(0, 4, (32,))
    heard: list[tuple[int, str]] = []
    with unvanish.watch(
        model, optimizer, every=1, on_finding=lambda f: heard.append((watch.steps, f.code))
    ) as watch:
        for step in range(40):
            if step == 10:
                with torch.no_grad():
                    model[2].bias -= 100
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert [c for _, c in heard].count("ACT003") == 1
    first = next(s for s, c in heard if c == "ACT003")
    assert 12 <= first <= 19  # 96 samples of three looks, whichever come later


def test_wrong_calls_say_what_is_wrong(tmp_path: Path, net: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for arguments, options, text in (
        (("net",), {}, "not a torch.nn.Module"),
        ((model, "adam"), {}, "pass the optimizer itself"),
        ((model, optimizer), {"budget": 0}, "share of the run's time"),
        ((model, optimizer), {"every": 0}, "a whole number from 1"),
        ((model, optimizer), {"on_finding": "rise"}, "did you mean 'raise'"),
        ((model, optimizer), {"on_finding": "snapshot"}, "give run="),
        ((model.requires_grad_(False),), {}, "requires a gradient"),
    ):
        with pytest.raises(CheckError, match=text):
            unvanish.watch(*arguments, **options)
    with pytest.raises(Exception, match="cannot write a run"):
        (tmp_path / "file").write_text("")
        unvanish.watch(net(), run=tmp_path / "file" / "x")


def test_a_note_that_becomes_a_warning_is_reported_again_after_three_looks() -> None:
    from dataclasses import replace

    from unvanish.clinic.rounds import RuleChoice
    from unvanish.clinic.watch import verdicts
    from unvanish.core.diagnosis import Finding
    from unvanish.core.trace import Trace

    note = Finding("REC001", "vanishing-through-time", "note", "x", (), (), (), "vanishing", 1.0)
    loud = replace(note, severity="warning")
    sequence = [note, note, note, loud, note, loud, loud, loud, loud]
    judge = verdicts.Verdicts(RuleChoice(frozenset({"REC001"}), {}), 0)
    empty: Any = Trace((), np.empty((0, 0, 0)), (), {}, ())
    said = []
    patch = pytest.MonkeyPatch()
    for step, finding in enumerate(sequence):
        rounds = verdicts.visit(empty, RuleChoice(frozenset(), {}))
        patch.setattr(verdicts, "visit", lambda *a, f=finding, r=rounds, **k: replace(r, findings=(f,)))
        said.append([f.severity for f in judge.judge(empty, step, None)])
        patch.undo()
    assert said == [[], [], ["note"], [], [], [], [], ["warning"], []]


@pytest.mark.parametrize(("act", "found"), [(nn.Sigmoid, {"ACT002", "DEP001"}), (nn.ReLU, set())])
def test_samples_that_look_alike_are_found(act: Any, found: set[str]) -> None:
    """A deep sigmoid net at chance, and the same with ReLU and He's weights, which learns."""
    torch.manual_seed(0)
    sizes = [(16, 64), *[(64, 64)] * 11]
    parts = [p for i, o in sizes for p in (nn.Linear(i, o), act())]
    model = nn.Sequential(*parts, nn.Linear(64, 4))
    if act is nn.ReLU:
        for p in model.parameters():
            nn.init.kaiming_normal_(p) if p.ndim > 1 else nn.init.zeros_(p)
    optimizer, x = torch.optim.Adam(model.parameters(), 1e-3), torch.randn(32, 16)
    y = (x[:, :4]).argmax(1)
    with unvanish.watch(model, optimizer, every=1, on_finding=[]) as watch:
        for _ in range(30):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            watch.step(loss)
    loud = [f for f in watch.findings if f.severity != "note"]
    assert {f.code for f in loud} | {c.code for f in loud for c in f.consequences} == found


def test_the_last_step_of_a_finding_is_a_step_of_the_run(tmp_path: Path, net: Any, fit: Any) -> None:
    model = net()
    frozen = torch.optim.SGD(model.parameters(), 0.0)
    fit(model, 21, look={"every": 8, "run": tmp_path, "on_finding": "silent"}, optimizer=frozen)
    (found,) = [f for f in open_run(tmp_path).findings() if f.finding.code == "OPT006"]
    assert (found.first, found.last) == (8, 20)
