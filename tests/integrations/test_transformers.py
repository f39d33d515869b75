"""Hugging Face's real Trainer: no bit changes, planted faults are named, a NaN batch is survived."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore", "error:unvanish")

from unvanish.integrations.transformers import TransformersWatch  # noqa: E402 - only where Transformers is

LOOPS: list[dict[str, Any]] = [
    {},
    {"max_grad_norm": 0.01},
    {"gradient_accumulation_steps": 2},
    {"bf16": True},
]


def count_up(rows: int = 64) -> list[dict[str, torch.Tensor]]:
    def row(k: int) -> torch.Tensor:
        return (k + (1 + k % 3) * torch.arange(12)) % 32

    return [{"input_ids": row(k), "labels": row(k)} for k in range(rows)]


def make() -> Any:
    torch.manual_seed(0)
    size = {"vocab_size": 32, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, bos_token_id=0, eos_token_id=0))


class Tower(nn.Module):
    """A classifier of sigmoids, which returns its loss as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        hidden = [layer for _ in range(14) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
        self.net = nn.Sequential(*hidden, nn.Linear(16, 4))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def train(
    folder: Path, model: Any, watch: Any = None, cls: Any = None, data: Any = None, **options: Any
) -> Any:
    settings = {
        "max_steps": 8, "learning_rate": 3e-3, "lr_scheduler_type": "constant", "logging_steps": 1,
        "per_device_train_batch_size": 8, "report_to": [], "save_strategy": "no", "use_cpu": True,
        "disable_tqdm": True, **options,
    }  # fmt: skip
    trainer = (cls or transformers.Trainer)(
        model,
        transformers.TrainingArguments(str(folder), **settings),
        train_dataset=data or count_up(),
        callbacks=[] if watch is None else [watch],
    )
    trainer.train()
    return trainer


def losses(trainer: Any) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("options", LOOPS, ids=str)
def test_no_bit_changes_and_the_log_knows_every_step(options: dict[str, Any], tmp_path: Path) -> None:
    alone, callback = train(tmp_path, make(), **options), TransformersWatch(every=1, on_finding="silent")
    watched = train(tmp_path, make(), callback, **options)
    assert losses(watched) == losses(alone)
    assert all(map(torch.equal, watched.model.parameters(), alone.model.parameters()))
    watch, rows = callback.watch, watched.state.log_history[:-1]
    assert watch.closed
    assert watch.findings == []
    assert watch.steps == watched.state.global_step == 8
    for row in rows:  # the whole step's loss, of accumulated ones too
        assert row["unvanish/loss"] == pytest.approx(row["loss"], rel=1e-5)
        limit = options.get("max_grad_norm", 1.0)
        assert row["unvanish/gradient_norm"] == pytest.approx(min(row["grad_norm"], limit), rel=1e-4)
    assert "unvanish/flow_decades" in rows[-1]
    clipped = watch.history.steps.columns()["clipped"]
    assert clipped[1:].tolist() == [row["grad_norm"] > limit for row in rows][1:]


def test_a_tower_of_sigmoids_is_named_in_the_log_and_ends_the_training(tmp_path: Path) -> None:
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    rows = [{"x": row, "labels": row[:4].argmax()} for row in x]
    callback = TransformersWatch(on_finding="silent", stop=True)
    trainer = train(tmp_path, Tower(), callback, data=rows)
    assert trainer.state.global_step == 3
    assert "ACT002 contracting-activation" in trainer.state.log_history[2]["unvanish/findings"]


def test_a_rate_100_times_too_large_is_named(tmp_path: Path) -> None:
    callback = TransformersWatch(on_finding="silent")
    train(tmp_path, make(), callback, learning_rate=0.3, max_steps=16)
    assert "OPT001" in [f.code for f in callback.watch.findings]


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_broken_batch_is_left_out_and_an_exception_passes(clip: float, tmp_path: Path) -> None:
    made: list[int] = []

    class Breaking(transformers.Trainer):  # type: ignore[misc, name-defined]
        def training_step(self, model: Any, inputs: Any, *args: Any) -> Any:
            made.append(len(made))
            if len(made) == 9:
                raise ValueError("the user's own")
            rate = torch.nan if len(made) == 5 else 1.0
            handle = model.transformer.wte.register_forward_hook(lambda m, i, output: output * rate)
            try:
                return super().training_step(model, inputs, *args)
            finally:
                handle.remove()

    callback = TransformersWatch(on_finding=("silent", "guard"))
    model = make()
    with pytest.raises(ValueError, match="the user's own"):
        train(tmp_path, model, callback, Breaking, max_grad_norm=clip, max_steps=20)
    watch = callback.watch
    assert "NUM001" in [f.code for f in watch.findings]
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert watch.steps == 8
    del callback
    gc.collect()
    assert watch.closed  # with the Trainer, which was dropped


def test_a_second_training_is_watched_anew_and_copies_pickle(tmp_path: Path) -> None:
    callback = TransformersWatch(every=1, on_finding="silent")
    model = make()
    train(tmp_path, model, callback, max_steps=2)
    first = callback.watch
    train(tmp_path, model, callback, max_steps=3)
    assert (first.steps, callback.watch.steps) == (2, 3)
    assert first.closed
    assert pickle.loads(pickle.dumps(copy.deepcopy(callback))).watch is None


def test_findings_go_to_the_library_s_logger(tmp_path: Path, hear: Any) -> None:
    records = hear("transformers")
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    rows = [{"x": row, "labels": row[:4].argmax()} for row in x]
    train(tmp_path, Tower(), TransformersWatch(), data=rows)
    told = [r for r in records if "ACT002" in r.getMessage()]
    assert [(r.levelname, r.name) for r in told] == [("ERROR", "transformers.unvanish")]
