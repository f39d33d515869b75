"""`unvanish show`, `compare`, and `check --snapshot`, on real runs."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unvanish
from unvanish.reports.run import data as run_data
from unvanish.reports.run import html as run_html
from unvanish.store import Store, open_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def train(folder: Path, *, poison: bool = False, steps: int = 12) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    criterion = nn.CrossEntropyLoss()
    with unvanish.watch(
        model, optimizer, criterion, run=folder, every=2, on_finding=["silent", "snapshot"], name="<b>net"
    ):
        for step in range(steps):
            x, y = torch.randn(16, 10), torch.randint(0, 4, (16,))
            if poison and step == 8:
                x[3, 4] = float("nan")
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    train(tmp_path / "mine")
    return tmp_path / "mine"


def test_the_story_is_reported(call: Any, run: Path) -> None:
    answer = call("show", str(run))
    assert answer.code == 0
    assert "12 steps (0 to 11)" in answer.out and "6 looks" in answer.out
    assert "loss" in answer.out and "gradient" in answer.out and "depth" in answer.out
    assert answer.out.rstrip().endswith("nothing wrong was seen")


def test_what_was_found_is_reported(call: Any, tmp_path: Path) -> None:
    train(tmp_path / "bad", poison=True)
    answer = call("show", str(tmp_path / "bad"))
    assert "error[NUM001]" in answer.out and "at step 8" in answer.out and "found 1: NUM001" in answer.out
    train(tmp_path / "good")
    both = call("compare", str(tmp_path / "bad"), str(tmp_path / "good"))
    line = next(x for x in both.out.splitlines() if x.startswith("NUM001"))
    assert "step 8, error" in line and line.rstrip().endswith("-")


def test_tables_hold_what_was_measured(call: Any, run: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        assert call("show", str(run), "--export", str(tmp_path / f"t.{suffix}")).code == 0
    trace = open_run(run).trace()
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(x) for x in (tmp_path / "t.jsonl").read_text().splitlines()]
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert len(rows) == len(lines) == len(table) > 30
    place = next(i for i, s in enumerate(trace.sites) if s.role == "parameter")
    wanted = trace.value(place, "gradient_log")
    for found in (rows, lines, table):
        last = [r for r in found if r["role"] == "parameter" and r["site"] == trace.sites[place].label][-1]
        assert float(last["gradient_log"]) == pytest.approx(wanted, rel=1e-6)


def test_wrong_calls_say_what_is_wrong(call: Any, run: Path, tmp_path: Path) -> None:
    for arguments, text in (
        (("show", str(tmp_path)), "there are runs in"),
        (("show", str(tmp_path / "nowhere")), "holds no run"),
        (("show", str(run), "--html", "x.txt"), "must end in .html"),
        (("show", str(run), "--png", str(tmp_path / "no" / "x.png")), "there is no folder"),
        (("compare", str(run), str(tmp_path / "nowhere")), "holds no run"),
    ):
        answer = call(*arguments)
        assert answer.code == 2 and text in answer.err, (arguments, answer.err)


def test_an_empty_run_has_a_story_and_a_page(call: Any, tmp_path: Path) -> None:
    Store(tmp_path / "new").close()
    assert "no step has been written yet" in call("show", str(tmp_path / "new")).out
    assert "<html" in run_html.render(open_run(tmp_path / "new"))


def test_the_page_is_whole_and_escapes_names(call: Any, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert call("show", str(run), "--html", str(page), "--png", str(tmp_path / "p.png")).code == 0
    text = page.read_text()
    assert "<b>net" not in text
    for outside in ("src=", 'href="http', "@import", "cdn."):
        assert outside not in text.split('<script type="module">')[0]
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


CLICK = """<script type="module">
const cells = document.querySelectorAll("#flow .mark-rect path");
const cell = cells[Math.floor(cells.length / 2)], box = cell.getBoundingClientRect();
const at = { bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
for (const kind of ["pointerdown", "mousedown", "pointerup", "mouseup", "click"])
  cell.dispatchEvent(new MouseEvent(kind, at));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_click_shows_the_site_and_the_step(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    start, _, end = run_html.render(open_run(run)).rpartition("</body>")
    page.write_text(f"{start}{CLICK}</body>{end}")
    shown = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile",
         "--virtual-time-budget=15000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=90,
    ).stdout  # fmt: skip
    summary = shown.split('id="summary">')[1].split("<")[0]
    assert " at step " in summary, summary
    assert "activation, rms" in shown.split('id="history" class="chart')[1].split("</section>")[0]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_every_part(run: Path, tmp_path: Path, scheme: str) -> None:
    page = tmp_path / "page.html"
    run_html.save(open_run(run), page)
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    shown = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile",
         *dark, "--virtual-time-budget=10000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=90,
    ).stdout  # fmt: skip
    assert 'data-drawn="yes"' in shown
    for part in ("curves", "flow", "ledger", "history", "moves"):
        assert "<svg" in shown.split(f'id="{part}" class="chart')[1].split("</section>")[0], part
    assert "Nothing wrong was seen." in shown
    ink = "#c9d4df" if scheme == "dark" else "#3a4653"
    assert ink in shown


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_the_live_page_is_drawn_under_its_policy(run: Path, tmp_path: Path) -> None:
    from unvanish.cli.live import make_server, write_policy

    assert "unsafe-eval" not in write_policy("x")
    server = make_server(open_run(run), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = subprocess.run(
            [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
             f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=10000", "--dump-dom",
             f"http://127.0.0.1:{server.server_address[1]}/"],
            capture_output=True, text=True, timeout=90,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert 'data-drawn="yes"' in done.stdout
    for part in ("curves", "flow", "ledger", "history", "moves"):
        assert "<svg" in done.stdout.split(f'id="{part}" class="chart')[1].split("</section>")[0], part
    told = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not [line for line in told if "rror" in line or "Security" in line], told


def test_the_live_page_serves_fresh_rows_on_loopback_only(run: Path) -> None:
    from unvanish.cli.live import make_server

    server = make_server(open_run(run), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        assert server.server_address[0] == "127.0.0.1"
        assert b"live = true" in urllib.request.urlopen(f"{address}/").read()
        first = json.loads(urllib.request.urlopen(f"{address}/data.json").read())
        train(run, steps=3)  # it grows
        second = json.loads(urllib.request.urlopen(f"{address}/data.json").read())
        assert len(second["steps"]) == len(first["steps"]) + 3
        for bad, code in ((f"{address}/../etc/passwd", 404), (f"{address}/", 403)):
            headers = {"Host": "evil.example"} if code == 403 else {}
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(urllib.request.Request(bad, headers=headers))
            assert error.value.code == code
            error.value.close()
    finally:
        server.shutdown()
        server.server_close()


def test_rows_are_strict_json(tmp_path: Path) -> None:
    train(tmp_path / "bad", poison=True)
    text = json.dumps(run_data.read_rows(open_run(tmp_path / "bad")), allow_nan=False)
    assert any(r["bad"] for r in json.loads(text)["steps"])


NET = """
from torch import nn


def build():
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def other():
    return nn.Linear(10, 4)
"""


def test_a_snapshot_is_replayed(call: Any, folder: Path) -> None:
    (folder / "mine.py").write_text(NET)
    train(folder / "bad", poison=True)
    (snapshot,) = (folder / "bad" / "snapshots").iterdir()
    answer = call("check", "mine.py:build", "--snapshot", str(snapshot))
    assert answer.code == 1 and "NUM001" in answer.out
    wrong = call("check", "mine.py:other", "--snapshot", str(snapshot))
    assert wrong.code == 2 and "does not fit" in wrong.err
    for text in ("nothing.pt", str(folder / "mine.py")):
        assert call("check", "mine.py:build", "--snapshot", text).code == 2
    mixed = call("check", "mine.py:build", "--data", str(snapshot))
    assert mixed.code == 2 and "--snapshot" in mixed.err


def test_a_run_fits_a_screen_and_is_a_picture(call: Any, run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "run.svg"
    answer = call("show", str(run), "--svg", str(picture))
    assert answer.code == 0 and len(answer.out.splitlines()) <= 24
    assert picture.read_text(encoding="utf-8").startswith("<svg ")
    assert "timeline" in call("show", str(run), "-v").out
    assert call("show", str(run), "--svg", "run.png").code == 2
