"""Ignite's real engine: no bit changes, planted faults are named, its own way with exceptions is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from unvanish.probes.errors import CheckError

pytest.importorskip("ignite")
pytestmark = pytest.mark.filterwarnings("ignore", "error:unvanish")

from ignite.engine import Events, create_supervised_trainer  # noqa: E402 - only where Ignite is

from unvanish.integrations.ignite import IgniteWatch  # noqa: E402


def run(model: nn.Module, data: Any, **options: Any) -> Any:
    x, y = map(torch.from_numpy, data)
    kind, lr = options.pop("kind", torch.optim.Adam), options.pop("lr", 1e-3)
    optimizer = kind(model.parameters(), lr=lr)
    losses: list[float] = []
    trainer = create_supervised_trainer(
        model, optimizer, nn.MSELoss(), gradient_accumulation_steps=options.pop("parts", 1)
    )
    raises, handles = options.pop("raises", -1), options.pop("handles", None)
    watch = None if options.pop("plain", False) else IgniteWatch(model, optimizer, **options).attach(trainer)

    def note(engine: Any) -> None:
        losses.append(engine.state.output)
        if len(losses) == raises:
            raise ValueError("the user's own")

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    if handles is not None:
        trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: handles.append(error))
    trainer.logger.disabled = True
    trainer.run(list(zip(x.split(16), y.split(16), strict=True)), max_epochs=2)
    return losses, watch, trainer


@pytest.mark.parametrize(("parts", "steps"), [(1, 32), (4, 8)])
def test_no_bit_changes(draw, tower, parts, steps) -> None:
    plain, _, _ = run(tower(), draw(), plain=True, parts=parts)
    watched, ours, trainer = run(tower(), draw(), on_finding="silent", parts=parts)
    assert watched == plain
    assert (ours.watch.steps, ours.watch.findings, ours.watch.closed) == (steps, [], True)
    assert trainer.state.metrics["unvanish/gradient_norm"] > 0


def test_planted_faults_are_named(draw, tower) -> None:
    _, ours, _ = run(tower(nn.Sigmoid, 10), draw(), on_finding="silent", every=5)
    assert ours.watch.findings[0].code == "ACT002"
    losses, ours, _ = run(tower(), draw(), on_finding="silent", lr=1.0, stop=True)
    assert {f.code for f in ours.watch.findings} & {"OPT001", "OPT008"}
    assert len(losses) < 32 and ours.watch.closed


def test_a_batch_of_nan_is_survived(draw, tower) -> None:
    losses, ours, _ = run(model := tower(), draw(100), on_finding="guard")
    assert "NUM001" in [f.code for f in ours.watch.findings] and losses[-1] == losses[-1]
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_exceptions_go_where_they_went(draw, tower) -> None:
    with pytest.raises(ValueError, match="own"):
        run(tower(), draw(), raises=5, on_finding="silent")
    _, ours, _ = run(tower(), draw(), raises=5, handles=(handled := []), on_finding="silent")
    assert len(handled) == 1 and ours.watch.closed and ours.watch.steps == 5


def test_only_an_engine_is_watched(tower) -> None:
    with pytest.raises(CheckError, match="not an ignite"):
        IgniteWatch(tower()).attach(tower())


def test_findings_go_to_the_engine_s_logger(draw, tower, hear, capsys) -> None:
    records = hear("ignite")
    x, y = map(torch.from_numpy, draw())
    model = tower(nn.Sigmoid, 10)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    IgniteWatch(model, optimizer, every=5).attach(trainer)
    trainer.logger.disabled = False  # the tests above silenced it
    trainer.run(list(zip(x.split(16), y.split(16), strict=True)), max_epochs=2)
    told = [r for r in records if "ACT002" in r.getMessage()]
    assert [r.levelname for r in told] == ["ERROR"] and told[0].name == trainer.logger.name
    assert "ACT002" not in capsys.readouterr().err
