"""What is written into a logger: its level, and the bars of tqdm and Rich that stay whole."""

from __future__ import annotations

import io
import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from unvanish.integrations.logs import write_by


@pytest.fixture
def logger() -> Any:
    one = logging.getLogger("unvanish.test_logs")
    one.propagate, one.handlers, one.level = False, [], logging.DEBUG
    yield one
    one.handlers = []


def test_severities_are_levels(logger: Any) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    for severity in ("error", "warning", "note"):
        write_by(logging.LoggerAdapter(logger))(f"a {severity} of 100%", severity)
    assert out.getvalue().splitlines() == [
        "ERROR a error of 100%", "WARNING a warning of 100%", "INFO a note of 100%",
    ]  # fmt: skip


def test_a_bar_of_tqdm_is_cleared_for_the_line(logger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm")
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logger.addHandler(logging.StreamHandler(out))
    with tqdm.tqdm(total=3, file=out, ascii=True) as bar:
        bar.update()
        write_by(logger)("here it is", "warning")
    before, _, _ = out.getvalue().partition("here it is")
    assert before.endswith("\r")  # the bar's line was wiped
    assert "here it is\n" in out.getvalue()


def test_a_live_display_of_rich_takes_the_line(logger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    live, console = pytest.importorskip("rich.live"), pytest.importorskip("rich").get_console()
    out, terminal = io.StringIO(), io.StringIO()
    monkeypatch.setattr(console, "_file", out)  # `file` would keep the stream of now
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(sys, "__stderr__", terminal)
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    with live.Live("the bar", console=console, refresh_per_second=1):
        write_by(logger)("here it is", "error")
    assert "here it is" in out.getvalue() and terminal.getvalue() == ""
    assert handler.stream is terminal


@pytest.mark.parametrize("name", ["_live", "_live_stack"])
def test_a_display_is_seen_whatever_rich_calls_it(
    name: str, logger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rich = pytest.importorskip("rich")
    monkeypatch.setattr(rich, "get_console", lambda: SimpleNamespace(**{name: ["a bar"]}))
    replaced, terminal = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", replaced)
    monkeypatch.setattr(sys, "__stderr__", terminal)
    logger.addHandler(logging.StreamHandler(terminal))
    write_by(logger)("here it is", "error")
    assert "here it is" in replaced.getvalue() and terminal.getvalue() == ""
