"""The lines that benchmarks append, and how they are drawn."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from benchmarks import history, record


def options(folder: Path, **more: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    record.add_option(parser)
    found = parser.parse_args(["--results", str(folder)])
    vars(found).update(more)
    return found


def test_a_run_appends_a_line_that_says_how_it_was_made(tmp_path: Path) -> None:
    path = record.append("cost", options(tmp_path, only="MLP", jobs=2), {"time": 2.5, "lost": float("nan")})
    record.append("cost", options(tmp_path), {"time": 2.0, "verdict": "healthy"})
    assert path == tmp_path / "cost.jsonl"
    first, second = record.read(tmp_path)
    assert first["figures"] == {"time": 2.5, "lost": None}
    assert first["options"] == {"only": "MLP"}, "what changes no figure is left out"
    assert second["figures"]["verdict"] == "healthy" and second["options"] == {}
    assert {"date", "commit", "unvanish", "torch", "python"} <= set(first)
    assert first["machine"]["cores"] >= 1


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = record.append("cost", options(tmp_path), {"time": 2.5})
    path.write_text(path.read_text() + '{"benchmark": "co')
    assert len(record.read(tmp_path)) == 1


def test_lines_are_joined_only_where_options_and_processor_are_equal(tmp_path: Path) -> None:
    for only in ("", "MLP", ""):
        record.append("cost", options(tmp_path, only=only), {"time": 2.5, "verdict": "healthy"})
    points = history.rows(record.read(tmp_path))
    assert [p["title"] for p in points] == ["cost: time"] * 3, "a text is not drawn"
    assert len({p["how"] for p in points}) == 2
    assert history.rows(record.read(tmp_path), "cure") == []


@pytest.mark.parametrize("ending", ["svg", "html"])
def test_the_history_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    for time in (2.5, 2.0):
        record.append("cost", options(tmp_path), {"time": time})
    out = tmp_path / f"history.{ending}"
    monkeypatch.setattr(sys, "argv", ["history", "--results", str(tmp_path), "--out", str(out)])
    assert history.main() == 0
    assert "cost: time" in out.read_text() and "1 figures" in capsys.readouterr().out


def test_nothing_to_draw_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["history", "--results", str(tmp_path)])
    assert history.main() == 1
    assert "run a benchmark first" in capsys.readouterr().out


def test_every_line_is_json(tmp_path: Path) -> None:
    path = record.append("cost", options(tmp_path), {"time": float("inf")})
    line = path.read_text()
    assert "Infinity" not in line and json.loads(line)["figures"] == {"time": None}
