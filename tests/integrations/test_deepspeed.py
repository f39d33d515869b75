"""DeepSpeed's real engine, ZeRO 0 to 3 in one process: no bit changes, planted faults are named."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unvanish.probes.errors import CheckError

pytestmark = [pytest.mark.filterwarnings("ignore", "error:unvanish"), pytest.mark.slow]

with warnings.catch_warnings():  # DeepSpeed and what it imports
    warnings.simplefilter("ignore")
    deepspeed = pytest.importorskip("deepspeed")
    from unvanish.integrations.deepspeed import DeepSpeedWatch

PLACE = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29631",
}


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(nn.functional, "linear", nn.functional.linear)  # ZeRO 3 leaves its own there for good
    yield


def start(model: nn.Module, stage: int, **options: Any) -> Any:
    parts = options.get("parts", 1)
    settings = {
        "train_batch_size": 16 * parts,
        "gradient_accumulation_steps": parts,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": options.get("half", False)},
    }
    optimizer = options.get("kind", torch.optim.SGD)(model.parameters(), lr=options.get("lr", 0.01))
    return deepspeed.initialize(model=model, optimizer=optimizer, config=settings)[0]


def train(engine: Any, data: Any, half: bool = False) -> list[float]:
    x, y = (torch.from_numpy(part).to(torch.bfloat16 if half else torch.float32) for part in data)
    losses = []
    for a, b in zip(x.split(16), y.split(16), strict=True):
        loss = nn.functional.mse_loss(engine(a), b)
        engine.backward(loss)
        engine.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"parts": 2}, {"half": True}])
def test_no_bit_changes(draw, tower, stage, options) -> None:
    half = options.get("half", False)
    plain = train(start(tower(), stage, **options), draw(), half)
    engine = start(tower(), stage, **options)
    with DeepSpeedWatch(engine, on_finding="silent") as ours:
        watched = train(engine, draw(), half)
    assert watched == plain
    assert (ours.watch.steps, ours.watch.failure) == (16 // options.get("parts", 1), "")
    assert ours.watch.findings == [] and "step" not in vars(engine)
    assert ours.metrics()["unvanish/gradient_norm"] > 0 and ours.metrics()["unvanish/skipped_steps"] == 0


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_planted_faults_are_named(draw, tower, stage) -> None:
    engine = start(tower(nn.Sigmoid, 10), stage)
    with DeepSpeedWatch(engine, on_finding="silent", every=5) as ours:
        train(engine, draw())
    # ZeRO 3 puts a function of its own in the place of `linear`, for the rest of the process
    assert ours.watch.findings[0].code in ("ACT002", "DEP001")
    engine = start(tower(), stage, kind=torch.optim.Adam, lr=1.0)
    with DeepSpeedWatch(engine, on_finding="silent") as ours:
        train(engine, draw())
    assert {f.code for f in ours.watch.findings} & {"OPT001", "OPT008"}


def test_a_batch_of_nan_is_survived(draw, tower) -> None:
    engine = start(tower(), 0)
    with DeepSpeedWatch(engine, on_finding="guard") as ours:
        losses = train(engine, draw(100))
    assert "NUM001" in [f.code for f in ours.watch.findings] and np.isfinite(losses[-1])
    engine = start(tower(), 2)  # leaves the step out by itself
    with DeepSpeedWatch(engine, on_finding="silent") as ours:
        losses = train(engine, draw(100))
    assert "NUM001" in [f.code for f in ours.watch.findings] and np.isfinite(losses[-1])
    assert engine.skipped_steps == 1 == ours.metrics()["unvanish/skipped_steps"]


def test_what_cannot_be_watched_is_refused(tower) -> None:
    with pytest.raises(CheckError, match="guard"):
        DeepSpeedWatch(start(tower(), 2), on_finding="guard")
    with pytest.raises(CheckError, match="initialize"):
        DeepSpeedWatch(tower())
