"""The sinks of trackers, with the real libraries: what their own readers find; nothing else moves."""

from __future__ import annotations

import importlib
import json
import math
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.clinic.watch.sinks import _find_ours as find_ours
from unvanish.core.diagnosis import Finding
from unvanish.core.sink import Sink, SinkRow

LIBRARIES = {
    "jsonl": "json",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "opentelemetry": "opentelemetry.sdk",
}
FOUND = Finding("OPT001", "step-too-large", "error", "the steps grew")
pytestmark = pytest.mark.filterwarnings("default")  # warnings of theirs are not ours


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # it reads its settings once
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path),
        "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_URI": f"file:{tmp_path}/mlruns",
        "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def load(name):
    pytest.importorskip(LIBRARIES[name])
    return importlib.import_module(f"unvanish.integrations.sinks.{name}")


def train(to=None, steps=12, **options):
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    model = nn.Sequential(
        *[part for _ in range(5) for part in (nn.Linear(8, 8), nn.Sigmoid())], nn.Linear(8, 3)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(16, 8), torch.randint(3, (16,))
    losses = []
    with unvanish.watch(model, optimizer, to=to, on_finding="silent", **options) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, (torch.rand(1).item(), random.random(), float(np.random.rand())), watch.notes


def make_rows(count=6):
    broken = {"finite": 0.0, "loss": math.nan, "gradient_norm": math.inf}
    return [
        SinkRow(
            k, 1.7e9 + k, broken if k == 3 else {"finite": 1.0, "loss": 1.0 / (k + 1), "gradient_norm": 0.5}
        )
        for k in range(count)
    ]


def tell(sink, rows=None):
    """Call a sink as a feed does."""
    sink.open({"name": "net", "model": "Net", "folder": None})
    sink.steps(rows or make_rows())
    sink.look(SinkRow(5, math.nan, {"flow_decades": -3.0, "gradient/layers.0": 1e-9}))
    sink.finding(3, FOUND)
    sink.close()


@pytest.mark.parametrize("name", find_ours())
def test_a_file_is_a_sink(name):
    assert name in LIBRARIES, f"name the library of {name} above"
    module = load(name)
    sink = module.SINK("")
    assert isinstance(sink, Sink) and isinstance(module.ADOPTS, tuple)
    assert sink.rate is None or sink.rate > 0


@pytest.mark.parametrize("name", find_ours())
def test_losses_and_random_states_are_the_same_bit_for_bit(name):
    load(name)
    losses, drawn, notes = train(name)
    assert (losses, drawn, notes) == (*train()[:2], [])


def test_tensorboards_own_reader_finds_the_rows(tmp_path):
    load("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses, _, _ = train(f"tensorboard:{tmp_path / 'there'}", steps=6, every=2)
    reader = EventAccumulator(str(tmp_path / "there"))
    reader.Reload()
    told = reader.Scalars("unvanish/loss")
    assert {e.step: np.float32(losses[e.step]) for e in told} == {e.step: np.float32(e.value) for e in told}
    assert told and abs(told[0].wall_time - time.time()) < 60
    assert any(tag.startswith("unvanish/gradient/") for tag in reader.Tags()["scalars"])


def test_tensorboard_takes_the_writer_that_is_handed_over_and_leaves_it_open(tmp_path):
    module = load("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "mine"))
    tell(module.SINK(writer))
    writer.add_scalar("own", 1.0, 99)
    writer.close()
    reader = EventAccumulator(str(tmp_path / "mine"))
    reader.Reload()
    assert [(e.step, e.value) for e in reader.Scalars("own")] == [(99, 1.0)]
    values = {e.step: e.value for e in reader.Scalars("unvanish/gradient_norm")}
    assert len(values) == 6 and values[3] == math.inf and math.isnan(reader.Scalars("unvanish/loss")[3].value)
    assert "unvanish/OPT001/text_summary" in reader.Tags()["tensors"]
    assert len(os.listdir(tmp_path / "mine")) == 1


def read_records(content):
    """The records of a .wandb file: a log as of LevelDB, in blocks of 32 kB, after a header of 7 bytes."""
    place, parts = 7, []
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def read_history(folder):
    """The history of the one offline run of a folder, from its own file."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # the file is whole when its process has ended
    (file,) = Path(folder).rglob("*.wandb")
    rows = []
    for data in read_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return rows


def test_wandb_without_an_open_run_gets_one_of_its_own_with_every_row(tmp_path):
    module = load("wandb")
    import wandb

    tell(module.SINK("mine"))
    assert wandb.run is None
    rows = [row for row in read_history(tmp_path) if "unvanish/loss" in row]
    assert [row["unvanish/step"] for row in rows] == list(range(6)) and rows[0]["unvanish/loss"] == 1.0


def test_wandb_moves_no_step_of_the_users_own_run(tmp_path):
    module = load("wandb")
    import wandb

    with wandb.init(project="theirs") as run:
        sink = module.SINK("")
        sink.open({"name": "net", "model": "Net"})
        for k, row in enumerate(make_rows()):
            sink.steps([row])
            run.log({"own": k}, step=k)  # is dropped if anything of ours has moved the step on
        sink.finding(3, FOUND)
        sink.close()
        assert "steps grew" in run.summary["unvanish/OPT001"]
    rows = read_history(tmp_path)
    assert [row["own"] for row in rows if "own" in row] == list(range(6))
    assert [row["unvanish/step"] for row in rows if "unvanish/loss" in row][-5:] == [1, 2, 3, 4, 5]
    assert any("unvanish/steps" in row or "unvanish/steps/_type" in row for row in rows)


def test_wandb_says_nothing_if_its_owner_has_finished_the_run():
    module = load("wandb")
    import wandb

    run = wandb.init(project="theirs")
    sink = module.SINK(run)
    sink.open({})
    sink.steps(make_rows())
    run.finish()
    sink.steps(make_rows())
    sink.close()


def test_mlflow_writes_into_the_active_run_and_leaves_it_active():
    module = load("mlflow")
    import mlflow

    with mlflow.start_run() as run:
        tell(module.SINK(""))
        mlflow.log_metric("own", 1.0)
        assert mlflow.active_run().info.run_id == run.info.run_id
    client = mlflow.MlflowClient()
    found = client.get_run(run.info.run_id)
    told = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "unvanish.loss")}
    assert told == {k: 1.0 / (k + 1) for k in range(6) if k != 3}  # what is not finite is left out
    assert {m.step: m.value for m in client.get_metric_history(run.info.run_id, "unvanish.finite")}[3] == 0
    assert "the steps grew" in found.data.tags["unvanish.OPT001"] and found.info.status == "FINISHED"


def test_mlflow_makes_and_ends_a_run_without_one_and_activates_none():
    module = load("mlflow")
    import mlflow

    tell(module.SINK("mine"))
    assert mlflow.active_run() is None
    (run,) = mlflow.search_runs(experiment_names=["mine"], output_format="list")
    assert run.info.status == "FINISHED" and run.data.metrics["unvanish.gradient/layers.0"] == 1e-9


def test_opentelemetry_sets_gauges_and_counts():
    module = load("opentelemetry")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    tell(module.SINK(MeterProvider([reader])))
    data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    points = {m.name: [(p.value, dict(p.attributes)) for p in m.data.data_points] for m in data}
    assert points["unvanish.steps"] == [(6, {"watch": "net"})]
    assert points["unvanish.steps_not_finite"] == [(1, {"watch": "net"})]
    assert points["unvanish.loss"] == [(1 / 6, {"watch": "net"})]
    assert points["unvanish.gradient"] == [(1e-9, {"watch": "net", "layer": "layers.0"})]
    assert points["unvanish.findings"] == [(1, {"watch": "net", "code": "OPT001", "severity": "error"})]


def test_trackios_own_reader_finds_every_row():
    module = load("trackio")
    if not hasattr(module.trackio, "AlertLevel"):
        pytest.skip("a Trackio of before alerts and steps")
    from trackio.sqlite_storage import SQLiteStorage

    tell(module.SINK("mine"))
    (run,) = SQLiteStorage.get_runs("mine")
    rows = [row for row in SQLiteStorage.get_logs("mine", run) if "unvanish/loss" in row]
    assert [row["step"] for row in rows] == list(range(6)) and rows[1]["unvanish/loss"] == 0.5
