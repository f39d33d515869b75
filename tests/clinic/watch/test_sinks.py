"""Sinks beside the run folder: what they get, what happens if they fail, and that nothing of a run moves."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import warnings
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.clinic.watch import feeds, sinks
from unvanish.clinic.watch.feeds import SinkFeed
from unvanish.clinic.watch.telling import LAYERS, Teller, read_row, retell
from unvanish.core.sink import Sink, SinkRow
from unvanish.probes import CheckError
from unvanish.store import open_run
from unvanish.store.schema import STEP_COLUMNS

METHODS = ("open", "steps", "look", "finding", "close")


class Recorder(Sink):
    """Keeps all that it is told; raises at one of its methods."""

    rate = None

    def __init__(self, fails="", error=ValueError):
        self.fails, self.error = fails, error
        self.rows, self.looks, self.findings, self.calls, self.about = [], [], [], [], {}
        self.threads = set()

    def _note(self, method):
        self.calls.append(method)
        self.threads.add(threading.get_ident())
        if method == self.fails:
            raise self.error("it is full")

    def open(self, about):
        self.about = dict(about)
        self._note("open")
        self.threads.clear()

    def steps(self, rows):
        self.rows += rows
        self._note("steps")

    def look(self, row):
        self.looks.append(row)
        self._note("look")

    def finding(self, step, finding):
        self.findings.append((step, finding.code, finding.severity))
        self._note("finding")

    def close(self):
        self._note("close")


class Painter(Recorder):
    def picture(self, step, name, png):
        self._note("picture")
        self.png = png


def train(steps=30, depth=6, bad=None, fails=None, **options):
    """Train a small tower of sigmoids; its losses, and all random states after it."""
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    tower = [part for _ in range(depth) for part in (nn.Linear(12, 12), nn.Sigmoid())]
    model = nn.Sequential(*tower, nn.Dropout(0.1), nn.Linear(12, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(16, 12), torch.randint(3, (16,))
    losses = []
    with unvanish.watch(model, optimizer, on_finding="silent", **options) as watch:
        for step in range(steps):
            if step == fails:
                raise KeyError("the training's own")
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x * (float("nan") if step == bad else 1.0)), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    drawn = torch.rand(1).item(), random.random(), float(np.random.rand())
    return losses, drawn, watch


@pytest.fixture(scope="module")
def alone():
    return train()[:2]


def test_every_step_arrives_as_the_run_folder_has_it(tmp_path, alone):
    sink = Recorder()
    *same, watch = train(to=sink, run=tmp_path / "run")
    assert tuple(same) == alone
    steps = open_run(tmp_path / "run").steps()
    assert [row.step for row in sink.rows] == steps["step"].tolist() == list(range(30))
    assert [row.values["loss"] for row in sink.rows] == steps["loss"].tolist() == alone[0]
    norms = [row.values["gradient_norm"] for row in sink.rows]
    assert norms == pytest.approx(np.exp(steps["norm_log"]).tolist(), rel=1e-12)
    assert [code for _, code, _ in sink.findings] and sink.calls[0] == "open" and sink.calls[-1] == "close"
    name, folder = "Sequential", tmp_path / "run"
    assert sink.about == {"name": name, "model": name, "folder": folder, "prefix": "unvanish"}
    assert threading.get_ident() not in sink.threads  # the training's thread is not theirs
    assert watch.notes == []


def test_looks_name_the_flow_and_the_layers():
    sink = Recorder()
    train(to=sink, depth=3, every=5)
    values = sink.looks[-1].values
    assert {"flow_decades", "gradient/0", "update/0", "gradient/7"} <= set(values)
    assert values["flow_decades"] < -1 and values["gradient/0"] < values["gradient/7"]


def test_five_steps_are_five_rows_with_looks():
    sink = Recorder()
    train(steps=5, to=sink)
    assert len(sink.rows) == 5 and [look.step for look in sink.looks][:2] == [0, 1]


def test_two_networks_that_play_against_each_other_are_told_apart(tmp_path):
    torch.manual_seed(0)
    makes, judges = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizers = [torch.optim.Adam(net.parameters(), 1e-3) for net in (makes, judges)]
    told = Recorder(), Recorder()
    watches = [
        unvanish.watch(net, optimizer, name=name, to=[sink, tmp_path / "both.jsonl"], on_finding="silent")
        for net, optimizer, name, sink in zip(
            (makes, judges), optimizers, ("makes", "judges"), told, strict=True
        )
    ]
    for _ in range(6):
        made = makes(torch.randn(8, 4))
        optimizers[1].zero_grad()
        (judges(made.detach()).mean() - judges(torch.randn(8, 4)).mean()).backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        (-judges(made).mean()).backward()
        optimizers[0].step()
    for watch in watches:
        watch.close()
    for sink, name, layer in zip(told, ("makes", "judges"), ("gradient/model", "gradient/2"), strict=True):
        assert sink.about["prefix"] == f"unvanish/{name}" and len(sink.rows) == 6
        assert any(layer in look.values for look in sink.looks)
    assert (tmp_path / "both.jsonl").read_text().count('"kind": "step"') == 12


def test_what_is_not_finite_is_told_as_such():
    sink = Recorder()
    train(to=sink, bad=7)
    row = sink.rows[7].values
    assert row["finite"] == 0 and row["loss"] != row["loss"] and row["gradient_norm"] != row["gradient_norm"]
    assert "loss" not in sink.rows[7].finite_values and ("NUM001" in {c for _, c, _ in sink.findings})


@pytest.mark.parametrize("error", [ValueError, SystemExit])
@pytest.mark.parametrize("method", METHODS[1:])
def test_a_sink_that_raises_is_left_out_with_one_warning(method, error, alone):
    bad, good = Recorder(method, error), Recorder()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        *same, watch = train(to=[bad, good])
    told = [str(w.message) for w in caught if "sink" in str(w.message)]
    assert (
        len(told) == 1
        and told[0].startswith("unvanish: the sink Recorder is left out")
        and "\n" not in told[0]
    )
    assert tuple(same) == alone and len(good.rows) == 30 and good.calls[-1] == "close"
    assert bad.calls.count(method) <= 2  # a close that raised is not called again, others are closed
    assert [note for note in watch.notes if "Recorder was left out" in note]


def test_a_sink_that_cannot_be_opened_is_left_out(alone):
    bad, good = Recorder("open"), Recorder()
    with pytest.warns(RuntimeWarning, match="Recorder is left out, as it could not be opened"):
        *same, _ = train(to=[bad, good])
    assert tuple(same) == alone and bad.calls == ["open"] and len(good.rows) == 30


def test_ctrl_c_while_one_is_opened_closes_the_others():
    good = Recorder()
    with pytest.raises(KeyboardInterrupt):
        sinks.open_feeds({"good": good, "bad": Recorder("open", KeyboardInterrupt)}, {})
    assert good.calls == ["open", "close"]


def test_a_sink_that_ends_no_call_holds_nobody_up(monkeypatch, alone):
    monkeypatch.setattr("unvanish.clinic.watch.feeds.CLOSING", 0.2)
    gate = threading.Event()
    bad = Recorder()
    bad.steps = lambda rows: gate.wait(20)
    with pytest.warns(RuntimeWarning, match="it has not answered for 0.2 s"):
        *same, _ = train(to=bad)
    gate.set()
    assert tuple(same) == alone


def test_a_sink_is_closed_on_an_exception_and_has_the_steps_before_it():
    sink = Recorder()
    with pytest.raises(KeyError, match="own"):
        train(to=sink, fails=9)
    assert len(sink.rows) == 9 and sink.calls[-1] == "close"


def test_a_sink_is_closed_at_exit_and_draws_no_random_number(tmp_path):
    code = """
import atexit, random, torch, unvanish
from unvanish.core.sink import Sink
class Late(Sink):
    rate = None
    def open(self, about):
        atexit.register(print, "the library ends")  # as a tracker does, whose own end must come later
        random.random(), torch.rand(1)
    def steps(self, rows): print("rows", len(rows))
    def close(self): print("closed")
model = torch.nn.Linear(3, 3)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
random.seed(1), torch.manual_seed(1)
watch = unvanish.watch(model, optimizer, to=Late(), on_finding="silent")
print(random.random() == random.Random(1).random())
for _ in range(4):
    model(torch.ones(2, 3)).sum().backward(); optimizer.step()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110)
    assert done.stderr == "" and done.stdout.split("\n")[:4] == [
        "True",
        "rows 4",
        "closed",
        "the library ends",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_tells_nothing():
    sink = Recorder()
    feed = SinkFeed("one", sink, pause=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        feed.close()
        os._exit(7 if sink.calls else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    feed.close()
    assert sink.calls == ["close"]


@pytest.mark.slow
def test_a_picture_of_the_run_comes_at_its_end(tmp_path, monkeypatch):
    pytest.importorskip("altair"), pytest.importorskip("vl_convert")
    monkeypatch.setattr(feeds, "CLOSING", 100.0), monkeypatch.setattr(feeds, "DRAWING", 80.0)
    sink = Painter()
    train(to=sink, run=tmp_path / "run", every=10)
    assert sink.calls[-2:] == ["picture", "close"] and sink.png.startswith(b"\x89PNG")


def test_a_picture_that_takes_long_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(feeds, "DRAWING", 0.05)
    monkeypatch.setattr(feeds, "draw_run", lambda folder: threading.Event().wait(2))
    sink = Painter()
    train(steps=3, to=sink, run=tmp_path / "run")
    assert sink.calls[-1] == "close" and "picture" not in sink.calls


def make_row(step, time, loss=1.0, norm=0.0, finite=1):
    known = {"step": step, "wall": time, "loss": loss, "norm_log": norm, "finite": finite, "skipped": 0}
    return "steps", tuple(known.get(name) for name in STEP_COLUMNS)


def test_rows_beyond_the_rate_are_left_out_but_none_that_is_not_finite():
    sink = Recorder()
    teller = Teller(sink, rate=10.0)
    nan = float("nan")
    teller.tell(make_row(k, k / 100, *((nan, nan, 0) if k == 55 else ())) for k in range(100))
    assert 9 <= len(sink.rows) <= 12 and 55 in [row.step for row in sink.rows]
    assert teller.left == 100 - len(sink.rows) and teller.told == 99


@pytest.mark.parametrize("norm", [-np.inf, np.inf, 800.0, -800.0])
def test_norms_of_any_size_are_numbers(norm):
    value = read_row(make_row(0, 0.0, norm=norm)[1]).values["gradient_norm"]
    assert value == (np.inf if norm > 0 else 0.0)


def test_many_layers_are_told_by_an_even_share():
    sink, count = Recorder(), 300
    teller = Teller(sink)
    teller.tell(
        [
            ("meta", ("site_count", str(count))),
            ("meta", ("statistics", json.dumps(["gradient_log"]))),
            *(("sites", (i, f"layer{i}", "Linear", "parameter", "{}")) for i in range(count)),
            ("samples", (3, np.zeros(count, np.float32).tobytes())),
            ("samples", (4, np.zeros(7, np.float32).tobytes())),  # of another network
        ]
    )
    (look,) = sink.looks
    assert len(look.values) == LAYERS and {"gradient/layer0", "gradient/layer299"} <= set(look.values)


def test_a_finished_run_is_retold_as_it_was_told(tmp_path):
    live, later = Recorder(), Recorder()
    train(to=live, run=tmp_path / "run", bad=20, every=4)
    assert retell(open_run(tmp_path / "run"), later) == 30
    assert [row.step for row in later.rows] == [row.step for row in live.rows]
    for mine, theirs in zip(live.rows, later.rows, strict=True):
        assert mine.values == pytest.approx(theirs.values, nan_ok=True)
    assert [(look.step, sorted(look.values)) for look in later.looks] == [
        (look.step, sorted(look.values)) for look in live.looks
    ]
    assert {code for _, code, _ in later.findings} == {code for _, code, _ in live.findings}


@pytest.mark.parametrize(
    "to", ["wandbb", "", "json", 3, {}, {"a": 1}, [None], [["jsonl"]], object(), Recorder]
)
def test_what_is_no_sink_is_refused_in_one_line(to):
    with pytest.raises(CheckError) as caught:
        sinks.read_sinks(to)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_mistyped_name_is_corrected_and_all_names_are_listed():
    with pytest.raises(CheckError, match=r"did you mean 'tensorboard'\?.*jsonl, .*wandb"):
        sinks.read_sinks("tensorbord")


def test_a_sink_without_its_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "unvanish.integrations.sinks.mlflow", raising=False)
    with pytest.raises(CheckError, match=r"pip install 'unvanish\[mlflow\]'"):
        sinks.read_sinks("mlflow")


def test_others_add_sinks_by_an_entry_point(monkeypatch):
    made = []

    def make(place):
        made.append(place)
        return Recorder()

    class Point(EntryPoint):
        def load(self):
            return make

    found = {"theirs": Point("theirs", "their.module:make", sinks.GROUP)}
    monkeypatch.setattr(sinks, "_find_others", lambda: found)
    assert list(sinks.read_sinks(["theirs:there", "theirs"])) == ["theirs", "theirs 2"] and made == [
        "there",
        "",
    ]
    monkeypatch.setattr(found["theirs"].__class__, "load", lambda self: nn.Linear)
    with pytest.raises(CheckError, match="to='theirs': "):
        sinks.read_sinks("theirs")


def test_jsonl_beside_the_run_is_strict_json(tmp_path, alone):
    *same, _ = train(to="jsonl", run=tmp_path / "run")
    assert tuple(same) == alone
    lines = (tmp_path / "run" / "unvanish.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [r["loss"] for r in rows if r["kind"] == "step"] == alone[0]
    assert rows[0]["kind"] == "open" and rows[-1]["kind"] == "close"
    assert {"finding", "look"} <= {r["kind"] for r in rows}


def test_jsonl_goes_on_where_the_file_ends_and_takes_a_path(tmp_path):
    path = tmp_path / "deep" / "a.jsonl"
    for _ in range(2):
        train(steps=3, to=path)
    kinds = [json.loads(line)["kind"] for line in path.read_text().splitlines()]
    assert kinds.count("open") == kinds.count("close") == 2 and kinds.count("step") == 6
    os.mkfifo(tmp_path / "pipe")
    with pytest.warns(RuntimeWarning, match="jsonl is left out.*only regular files"):
        train(steps=2, to=f"jsonl:{tmp_path / 'pipe'}")


def test_a_row_that_was_not_measured_has_no_values():
    row = SinkRow(1, 0.0, {"a": float("nan"), "b": 2.0, "c": float("-inf")})
    assert row.finite_values == {"b": 2.0}
