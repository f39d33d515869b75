"""Names that move a cursor, reverse letters, end a line, or begin a formula or a script, wherever shown."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.core.diagnosis import Evidence, Finding, Remedy
from unvanish.core.names import as_file_name, show, show_cell
from unvanish.core.trace import Site
from unvanish.reports.run.compare import compare
from unvanish.reports.run.html import render as render_page
from unvanish.reports.run.text import render as render_run
from unvanish.store import Store, open_run
from unvanish.store.export import export

HOSTILE = "=\x1b[31m\x07\r\n\u202e\u2028</script><script>alert(1)</script>[red]\x9b\ud800"


def is_clean(text):
    return not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]", text
    )


def test_one_function_shows_a_name():
    assert show("a\x1b[31m\nb\u202e\U000e0001") == "a\\x1b[31m\\nb\\u202e\\U000e0001"
    assert show("größe 層 🙂") == "größe 層 🙂"
    assert show_cell("=cmd()") == "'=cmd()" and show_cell("-x") == "'-x" and show_cell(-1.5) == -1.5
    assert as_file_name("../../a\x00b") == "_.._a_b" and as_file_name("..") == "_"
    assert "/" not in as_file_name("a/b\\c") and len(as_file_name("x" * 999)) <= 100


class Hostile(nn.Module):
    """Its class and its parts have names of somebody else's."""

    def __init__(self):
        super().__init__()
        name = HOSTILE.replace(".", "")
        self.add_module(
            name, nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.Sigmoid()) for _ in range(12)])
        )
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(next(self.children())(x))


Hostile.__name__ = Hostile.__qualname__ = HOSTILE.replace("\ud800", "")


@pytest.fixture(scope="module")
def diagnosis():
    torch.manual_seed(0)
    x, y = torch.randn(16, 8), torch.randint(0, 2, (16,))
    return unvanish.check(Hostile(), (x, y), nn.CrossEntropyLoss(), name=HOSTILE, confirm=False)


@pytest.mark.parametrize("ending", [".txt", ".html", ".json"])
def test_a_diagnosis_shows_names_without_control_characters(diagnosis, tmp_path, ending):
    assert diagnosis.findings
    text = diagnosis.save(tmp_path / f"r{ending}").read_text()
    assert is_clean(text)
    if ending == ".html":
        assert "<script>alert" not in text
    if ending == ".json":
        json.loads(text)


def test_a_run_shows_names_without_control_characters(tmp_path):
    store = Store(tmp_path / "run=\x1b[31m", pause=0.01)
    axes = [{"name": "depth", "kind": "depth", "sites": [1, 0]}]
    name = HOSTILE.replace("\ud800", "")
    store.describe(model=name, axes=axes, overhead=0.01)
    store.sites([Site(name, name), Site("b", "relu")], ("backward_log", "forward_rms"))
    store.steps({"step": i, "wall": float(i), "loss": 1.0, "finite": 1} for i in range(4))
    store.sample(0, np.full((2, 2), -1.0))
    store.profile(0, name, np.zeros(3))
    finding = Finding("ACT001", name, "warning", name, (name,), (Evidence(name, name, name, name, name),))
    finding = replace(finding, remedies=(Remedy("freeze", (name,), name),))
    store.finding(1, 0, 2, finding)
    store.close()
    run = open_run(store.folder)
    page = render_page(run)
    for text in (render_run(run), compare(run, run), page.rpartition("const run")[2]):
        assert is_clean(text)
    assert "<script>alert" not in page
    rows = list(csv.reader(export(run, tmp_path / "t.csv").read_text().splitlines()))
    assert all(not cell.startswith(("=", "@", "+")) for row in rows for cell in row)
    assert is_clean((tmp_path / "t.csv").read_text()) and is_clean(
        export(run, tmp_path / "t.jsonl").read_text()
    )
