"""`unvanish train` and its kin as a person types them, and the networks of the zoo for check and forecast."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

SMALL = """
task: classify
classes: 10
channels: 3
layers:
  - {name: stem, module: Conv, out: 8, kernel: 3, stride: 2}
  - {name: head, module: ClassifyHead}
"""


@pytest.fixture
def net(tmp_path):
    """A small network's YAML in the folder of the command."""
    (tmp_path / "small.yaml").write_text(SMALL)
    return "small.yaml"


def test_train_val_predict_and_export(command, net, tmp_path):
    done = command(
        "train", f"model={net}", "data=digits.yaml", "--epochs", "2", "batch=256", "lr0=1e-2", "--no-plots"
    )
    assert done.returncode == 0, done.stderr
    assert "only 12 optimizer steps; expect little" in done.stdout
    best = tmp_path / "runs" / "classify" / "small" / "weights" / "best.safetensors"
    again = command("val", f"model={best}")
    assert again.returncode == 0 and "classify: accuracy" in again.stdout
    accuracy = again.stdout.split("accuracy ")[1].split(",")[0]
    assert f"accuracy {accuracy}" in done.stdout
    made = command("export", f"model={best}", "format=torchscript", "path=net.pt2")
    assert made.returncode == 0 and (tmp_path / "net.pt2").is_file()


DETECTOR = """
nc: 4
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, [nc]]
"""


def test_a_detector_is_trained_checked_and_asked(command, tmp_path):
    from PIL import Image

    (tmp_path / "tiny.yaml").write_text(DETECTOR)
    (tmp_path / "scenes.yaml").write_text("kind: shapes\nsamples: 16\nval_samples: 4\n")
    Image.new("RGB", (80, 40)).save(tmp_path / "a.png")
    words = ("model=tiny.yaml", "data=scenes.yaml", "imgsz=60", "epochs=1", "batch=8", "plots=false")
    done = command("train", *words)
    assert done.returncode == 0, done.stderr
    assert "imgsz=60 is not a multiple of 32; using 64" in done.stdout
    assert "detect: mAP50-95" in done.stdout and "optimizer steps; expect mAP near 0" in done.stdout
    best = tmp_path / "runs" / "detect" / "tiny" / "weights" / "best.safetensors"
    asked = command("predict", f"model={best}", "source=a.png", "conf=0.9")
    assert asked.returncode == 0 and "a.png: nothing found" in asked.stdout
    for data in (["--data", "scenes.yaml"], ["--input", "3,64,64"]):  # the second with invented objects
        checked = command("check", "tiny.yaml", *data, "--fail-on", "error")
        assert checked.returncode == 0, checked.stderr + checked.stdout


def test_ctrl_c_saves_and_says_how_to_go_on(net, tmp_path):
    words = ["train", f"model={net}", "data=digits.yaml", "epochs=100000", "plots=false", "name=long"]
    environment = {**os.environ, "NO_COLOR": "1"}
    running = subprocess.Popen(
        [sys.executable, "-m", "unvanish", *words], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    rows, end = tmp_path / "runs" / "classify" / "long" / "results.csv", time.time() + 100
    while not rows.is_file() and time.time() < end and running.poll() is None:
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, message = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "everything is saved, continue with: unvanish train resume=runs/classify/long" in message
    assert (rows.parent / "weights" / "last.state.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "model=resnet20.yaml", "dat=digits.yaml"], "no argument 'dat' (did you mean 'data'?)"),
        (["train", "model=resnet20.yaml"], "data= is missing"),
        (["train", "resnet20.yaml"], "'resnet20.yaml' is not an argument; write name=value"),
        (["train", "model=resnte20.yaml", "data=digits.yaml"], "did you mean 'resnet20'?"),
        (["train", "model=resnet20.yaml", "data=digist.yaml"], "digits"),
        (
            ["train", "model=resnet20.yaml", "data=digits.yaml", "epochs=none"],
            "epochs='none' is not a whole number",
        ),
        (["train", "resume=nowhere"], "there is no run nowhere to resume"),
        (["val", "data=digits.yaml"], "model= is missing"),
        (
            ["predict", "model=nowhere.safetensors", "source=a.png"],
            "there is no checkpoint nowhere.safetensors",
        ),
        (["zoo", "resnte"], "did you mean 'resnet"),
        (["check", "resnte20.yaml"], "did you mean 'resnet20'?"),
    ],
)
def test_what_is_wrong_is_one_line(command, words, expected):
    done = command(*words)
    assert done.returncode == 2 and expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_lists_every_argument_and_imports_no_torch(tmp_path):
    code = """
import sys
sys.argv = ["unvanish", "train", "--help"]
from unvanish.cli import app
try:
    app(prog_name="unvanish")
except SystemExit:
    pass
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "epochs=100" in done.stdout and "label_smoothing=0.0" in done.stdout


def test_the_zoo_is_listed(command):
    done = command("zoo", "adding")
    assert done.returncode == 0 and "lstm-adding" in done.stdout and "resnet20" not in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["check", "small.yaml", "--data", "digits.yaml"],
        ["check", "small.yaml", "--input", "1,16,16"],
        ["check", "small.yaml"],
        ["forecast", "small.yaml", "--input", "3,32,32"],
    ],
)
def test_check_and_forecast_take_a_yaml(command, net, words):
    done = command(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "healthy" in done.stdout


@pytest.mark.parametrize(
    "name", ["rnn-adding", "gru-copy", "lstm-sentiment", "transformer-translate", "lstm-lm"]
)
def test_random_batches_fit_every_task(name):
    import torch

    from unvanish.cli import lab

    found = lab.load_subject(f"{name}.yaml", None, [], 2, 0)
    assert found.random_batch is not None
    x, y = found.random_batch(2, 0, None).value
    out = found.model(*x) if isinstance(x, tuple) else found.model(x)
    assert torch.isfinite(found.loss(out, y))
