"""The text report: golden files, and what must hold for every diagnosis."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from unvanish.core.diagnosis import Diagnosis
from unvanish.reports.diagnosis import text

GOLDEN = Path(__file__).with_name("golden")
CASES = [("sick", 80), ("sick", 100), ("healthy", 80), ("blocks", 80), ("recurrent", 80), ("broken", 80)]
CASES += [("silent", 80), ("thousands", 80), ("weird", 80), ("empty", 80)]
Build = Callable[[str], Diagnosis]


@pytest.mark.parametrize(("name", "width"), CASES)
def test_golden(example: Build, name: str, width: int) -> None:
    """UNVANISH_REGOLD=1 writes the files anew; read their diff before you commit it."""
    path = GOLDEN / f"{name}-{width}.txt"
    got = text.render(example(name), width)
    if os.environ.get("UNVANISH_REGOLD"):
        path.write_text(got, encoding="utf-8")
    assert got == path.read_text(encoding="utf-8")


def test_golden_of_everything(example: Build) -> None:
    """What `-v` and a saved file hold."""
    path = GOLDEN / "sick-whole-100.txt"
    got = text.render(example("sick"), 100, verbose=True)
    if os.environ.get("UNVANISH_REGOLD"):
        path.write_text(got, encoding="utf-8")
    assert got == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("height", [24, 40])
@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_report_fits_a_screen(diagnosis: Diagnosis, width: int, height: int) -> None:
    lines = text.render(diagnosis, width, height).splitlines()
    assert len(lines) <= height
    counted = diagnosis.counted("warning")
    assert all(any(f.code in line for line in lines) for f in counted[:1])
    assert not counted or lines[0].startswith("unvanish: ")


def test_a_taller_screen_shows_more(example: Build) -> None:
    short, tall = (text.render(example("sick"), 80, height) for height in (24, 50))
    assert "saturated units" not in short and "saturated units" in tall
    assert len(tall.splitlines()) > len(short.splitlines())


def test_a_terminal_gets_its_own_height(example: Build) -> None:
    found = example("sick")
    tall = printed(found, width=80, height=50, force_terminal=True, color_system=None)
    assert 24 < len(tall.splitlines()) < 50
    assert len(printed(found, width=80, height=50).splitlines()) <= 24


@pytest.mark.parametrize("width", [20, 60, 72, 80, 93, 100, 300])
def test_no_line_is_wider_than_the_page(diagnosis: Diagnosis, width: int) -> None:
    page = min(max(width, 60), 100)
    wide = [line for line in text.render(diagnosis, width).splitlines() if cell_len(line) > page]
    assert not wide


def test_only_printable_characters(diagnosis: Diagnosis) -> None:
    shown = text.render(diagnosis)
    assert all(c == "\n" or c.isprintable() for c in shown)
    shown.encode("utf-8")


def test_sick_says_what_where_how_much_why_and_what_to_do(example: Build) -> None:
    shown = text.render(example("sick"), 100, verbose=True)
    assert "the gradient vanishes: it loses 18.9 decades" in shown
    assert "error[ACT002] contracting-activation: the slope of Sigmoid" in shown
    assert "--> layers.0.act (Sigmoid), and 29 more" in shown
    assert re.search(r"mean square slope +0\.0569 +\(limit >= 0\.5\) at layers\.3\.act", shown)
    assert "= confirmed: with the slopes set to 1" in shown
    assert "= follows: DEP001 information-collapse, INI001 weights-too-small" in shown
    assert "= remedy [exact] centred-sigmoid on 30 sites: Sigmoid is" in shown
    assert "`unvanish explain ACT002`" in shown
    assert "not applicable (7):" in shown and "ATT001 ATT002: no attention" in shown
    assert "assumed: the batch was standard normal noise" in shown


def test_consequences_are_not_listed_as_rivals(example: Build) -> None:
    shown = text.render(example("sick"))
    assert "error[DEP001]" not in shown and "warning[INI001]" not in shown
    assert "\nfound 1 error and 1 warning: ACT002, GRF002\n" in shown
    assert shown.endswith("11 rules passed, 7 not applicable (-v lists them); `unvanish explain ACT002`\n")


def test_healthy_is_short_and_quiet(example: Build) -> None:
    shown = text.render(example("healthy"))
    assert len(shown.splitlines()) < 12
    assert "healthy: +0.19 decades between the loss and the input" in shown
    assert "11 rules passed, 7 not applicable" in shown
    assert "ledger" not in shown


@pytest.mark.parametrize(("name", "words"), [("blocks", "tried, not confirmed"), ("silent", "indicated")])
def test_how_sure_a_cause_is(example: Build, name: str, words: str) -> None:
    assert f"= {words}: " in text.render(example(name))


def test_no_gradient_at_all(example: Build) -> None:
    shown = text.render(example("silent"))
    assert "the gradient is blocked: no gradient at all reaches the input" in shown
    assert re.search(r"total +-inf +no gradient at all", shown)


def test_a_crash_is_reported(example: Build) -> None:
    shown = text.render(example("broken"))
    assert "the model crashed" in shown and "LogBackward0" in shown
    assert "NaN or infinite outputs" in shown


def test_time_is_drawn(example: Build) -> None:
    shown = text.render(example("recurrent"))
    assert "vanishes through time: it loses 21.6 decades over 119 steps" in shown
    assert re.search(r"[▁▂▃▄▅▆▇█]{70,}", shown)


def test_thousands_of_rows_are_folded_but_the_worst_shows(example: Build) -> None:
    shown = text.render(example("thousands"), verbose=True)
    assert len(shown.splitlines()) < 60
    assert re.search(r"layers\.799\.act \(Linear\) +-4\.20 ", shown)
    assert "and 37 more findings: ACT003 dead-units (37)" in shown
    assert re.search(r"\.\.\. \d+ more Sigmoid", shown)


def test_str_and_save_use_this_report(example: Build, tmp_path: Path) -> None:
    found = example("sick")
    assert str(found) == text.render(found)
    saved = found.save(tmp_path / "report.txt").read_text(encoding="utf-8")
    assert saved == text.render(found, verbose=True) and len(saved) > len(str(found))


def printed(found: Diagnosis, **options: object) -> str:
    stream = io.StringIO()
    text.print_report(found, Console(file=stream, **options))  # type: ignore[arg-type]
    return stream.getvalue()


def test_piped_output_is_plain(example: Build) -> None:
    shown = printed(example("sick"), width=80)
    assert "\x1b" not in shown
    assert [line.rstrip() for line in shown.splitlines()] == text.render(example("sick"), 80).splitlines()


def test_a_terminal_gets_colours_unless_no_color(example: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = {"force_terminal": True, "width": 100, "color_system": "256"}
    assert re.search(r"\x1b\[[0-9;]*31", printed(example("sick"), **terminal))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", printed(example("sick"), **terminal))


def test_markup_in_names_is_not_interpreted(example: Build) -> None:
    stream = io.StringIO()
    text.print_report(example("weird"), Console(file=stream, width=100), verbose=True)
    assert "[bold]markup[/bold]" in stream.getvalue()


def test_a_stream_that_only_knows_ascii(diagnosis: Diagnosis) -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as stream:
        text.print_report(diagnosis, Console(file=stream, width=80))
        stream.flush()
        assert raw.getvalue().decode("ascii")
