"""The published architectures build, train on their batch, and the two tables can be shown."""

from __future__ import annotations

import pytest
import torch
from benchmarks.architectures import all_of_them
from rich.console import Console

from benchmarks import cost, zoo

CHEAP = ["LeNet-5", "U-Net", "FPN detector", "seq2seq with attention", "GAT", "gMLP", "Fixup ResNet", "SIREN"]


@pytest.mark.parametrize("name", CHEAP)
def test_an_architecture_gives_finite_gradients(name: str) -> None:
    torch.manual_seed(0)
    subject = all_of_them()[name]()
    x, y = subject.batch
    assert subject.loss is not None
    subject.loss(subject.model(x), y).backward()
    gradients = [p.grad for p in subject.model.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)


def test_there_are_enough_of_them() -> None:
    assert len(all_of_them()) >= 48  # without the transformers library


def test_a_result_is_shown_with_what_was_found() -> None:
    results = [
        zoo.examine("Highway-50", all_of_them()["Highway-50"]),
        zoo.Result("X", 1, 0.0, ("INI001",), ()),
    ]
    assert results[0].warnings == ()
    console = Console(record=True, width=100)
    console.print(zoo.table(results))
    assert "healthy" in (shown := console.export_text()) and "INI001" in shown


def test_a_crash_counts_as_a_warning() -> None:
    def broken() -> zoo.Builder:
        raise RuntimeError("no such layer")

    result = zoo.examine("broken", broken)  # type: ignore[arg-type]
    assert result.warnings == ("crash",) and "no such layer" in result.why


def test_the_cost_of_a_small_model_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    cost.worker("LSTM 2 x 256, batch 32, 100 steps", "step", 1)
    assert '"seconds"' in capsys.readouterr().out
