"""What a watch prints, displays in a notebook, and saves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unvanish
from unvanish.clinic.watch import Watch
from unvanish.reports.run import data
from unvanish.store import open_run


def train(watched: Watch, model: nn.Module, optimizer: Any, steps: int, *, zero: bool = False) -> None:
    """A loop without a loss module; `zero`: the loss becomes exactly 0 halfway."""
    with watched:
        for step in range(steps):
            x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
            loss = nn.functional.cross_entropy(model(x), y)
            if zero and step >= steps // 2:
                loss = loss * 0.0
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def net(layers: int = 2, seed: int = 0) -> tuple[nn.Module, Any]:
    torch.manual_seed(seed)
    parts = [p for _ in range(layers) for p in (nn.Linear(6, 6), nn.Tanh())]
    model = nn.Sequential(*parts, nn.Linear(6, 3))
    return model, torch.optim.SGD(model.parameters(), 0.1)


def test_a_watch_prints_a_verdict_and_the_evidence() -> None:
    model, optimizer = net()
    watch = unvanish.watch(model, optimizer, name="mine", on_finding="silent")
    assert "no step was seen" in str(watch)
    train(watch, model, optimizer, 12)
    lines = str(watch).splitlines()
    assert lines[0] == "unvanish watch: mine"
    assert re.fullmatch(r"verdict: nothing wrong was seen in 12 steps and \d+ looks", lines[1])
    assert re.fullmatch(r"12 steps, \d+ looks, watch overhead [\d.]+%", lines[2])
    assert lines[3].startswith("  loss") and re.search(r"  1\.\d+ to [01]\.\d+$", lines[3])
    assert repr(watch).startswith("<watch of mine")


def test_a_notebook_shows_the_same_and_escapes_names() -> None:
    model, optimizer = net()
    watch = unvanish.watch(model, optimizer, name="<b>mine", on_finding="silent")
    train(watch, model, optimizer, 12)
    html = str(watch._repr_html_())
    assert "nothing wrong was seen in 12 steps" in html and "<b>mine" not in html
    assert html.count("<div") == html.count("</div>") and "<svg" in html


def test_a_finding_is_shown_with_its_steps_and_its_remedy() -> None:
    model, optimizer = net()
    watch = unvanish.watch(model, optimizer, on_finding="silent", every=1)
    x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
    with watch:
        for step in range(8):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x * (float("nan") if step == 5 else 1)), y).backward()
            optimizer.step()
    text = str(watch)
    assert "verdict: 1 error: NUM001" in text.splitlines()[1] and "at step 5" in text.splitlines()[1]
    assert "error[NUM001]" in text and "  = remedy" in text and "  step 5  " in text
    assert "NUM001" in str(watch._repr_html_()) and "faulty" in str(watch._repr_html_())


@pytest.mark.parametrize("suffix", [".txt", ".html", ".json"])
@pytest.mark.parametrize("steps", [0, 12])
def test_a_diagnosis_of_a_watch_is_saved(tmp_path: Path, suffix: str, steps: int) -> None:
    model, optimizer = net()
    watch = unvanish.watch(model, optimizer, on_finding="silent")
    train(watch, model, optimizer, steps)
    saved = watch.diagnosis().save(tmp_path / f"d{suffix}").read_text()
    assert "Sequential" in saved
    if suffix == ".txt" and steps:
        assert "a training: the last 12 steps" in saved and "healthy" in saved
    if suffix == ".html" and steps:
        assert "Measured while it trained" in saved


def test_a_watch_that_cannot_be_shown_says_so_and_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = net()
    watch = unvanish.watch(model, optimizer, on_finding="silent")

    def fail(self: Any) -> Any:
        raise KeyError("weight_log")

    monkeypatch.setattr(Watch, "sight", fail)
    assert str(watch).startswith("<watch of") and watch._repr_html_() is None
    train(watch, model, optimizer, 3)
    assert watch.steps == 3 and not watch.failure and "weight_log" in watch.notes[0]


def test_a_run_holds_clipped_steps_and_the_loss_that_nobody_told(tmp_path: Path) -> None:
    model, optimizer = net()
    watch = unvanish.watch(model, optimizer, run=tmp_path / "run", on_finding="silent", every=1)
    with watch:
        for _ in range(6):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(8, 6)) * 10, torch.randint(0, 3, (8,))).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
    rows = data.read_rows(open_run(tmp_path / "run"))
    assert [row["clipped"] for row in rows["steps"]] == [1.0] * 6
    assert all(row["loss"] is not None and row["lr"] == 0.1 for row in rows["steps"])
    assert all(row["moved"] < -2 for row in rows["looks"])


def test_a_continued_run_shows_its_earlier_looks_and_where_it_was_continued(tmp_path: Path) -> None:
    for _ in range(2):
        model, optimizer = net()
        train(
            unvanish.watch(model, optimizer, run=tmp_path / "run", on_finding="silent", every=2),
            model, optimizer, 6, zero=True,
        )  # fmt: skip
    rows = data.read_rows(open_run(tmp_path / "run"))
    assert {row["step"] for row in rows["moves"] if row["moved"] is not None} == {0, 2, 4, 6, 8, 10}
    assert [m["step"] for m in rows["timeline"] if m["text"] == "the run was continued"] == [6]
    assert [row["step"] for row in rows["steps"] if row["zero"]] == [3, 4, 5, 9, 10, 11]
    floor = min(row["norm"] for row in rows["steps"])
    assert all(row["norm"] == floor for row in rows["steps"] if row["zero"]) and floor <= -1


def test_a_run_continued_with_fewer_sites_shows_all_its_looks(tmp_path: Path) -> None:
    for layers in (4, 2):
        model, optimizer = net(layers)
        train(
            unvanish.watch(model, optimizer, run=tmp_path / "run", on_finding="silent", every=2),
            model, optimizer, 6,
        )  # fmt: skip
    rows = data.read_rows(open_run(tmp_path / "run"))
    assert {row["step"] for row in rows["moves"] if row["moved"] is not None} == {0, 2, 4, 6, 8, 10}
