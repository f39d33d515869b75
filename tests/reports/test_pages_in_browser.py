"""The pages in a browser: the one script runs under the page's policy, no other does; nothing is too wide."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.reports.test_report_cure import cured

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
WIDE = (
    "document.body.dataset.wide=[...document.querySelectorAll('article,article>*')]"
    ".filter(e=>e.getBoundingClientRect().right>390.5).length"
)
FRAME = """<!doctype html><iframe src="page.html" style="width:390px;height:4000px;border:0"></iframe>"""


def load(page: Path, *flags: str) -> str:
    """The page's elements after it was loaded, and what the browser said."""
    basics = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=4000",
    ]
    profile = f"--user-data-dir={page.parent}/profile"
    command = [str(CHROMIUM), *basics, *flags, profile, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    return done.stdout + "".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_the_copy_button_appears_and_nothing_else_may_run(tmp_path: Path) -> None:
    page = cured().save(tmp_path / "page.html")
    shown = load(page)
    assert 'class="uv-copy">Copy</button>' in shown and 'class="uv-copy" hidden' not in shown
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", "<script>document.title='ran'</script></body>"), encoding="utf-8")
    shown = load(page)
    assert "<title>ran" not in shown and "Content Security Policy" in shown


def test_a_page_fits_a_phone(tmp_path: Path) -> None:
    """Measured without the policy, in a frame as wide as a phone."""
    page = cured().save(tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    start, end = text.index("<meta http-equiv"), text.index("<meta name=")
    free = text[:start] + text[end:].replace(
        "</body>", f"<script>{WIDE};parent.postMessage(document.body.dataset.wide,'*')</script></body>"
    )
    page.write_text(free, encoding="utf-8")
    frame = tmp_path / "frame.html"
    listen = "<script>addEventListener('message',e=>document.title='wide '+e.data)</script>"
    frame.write_text(listen + FRAME, encoding="utf-8")
    assert "<title>wide 0</title>" in load(frame, "--allow-file-access-from-files")
