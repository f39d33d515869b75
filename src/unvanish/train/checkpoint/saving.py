"""What a run writes while it goes on: rows, checkpoints, the best weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from unvanish.train.checkpoint import folder, state
from unvanish.train.checkpoint.file import save, save_state

if TYPE_CHECKING:
    from unvanish.train.trainer import Trainer


def keep(trainer: Trainer, better: bool) -> None:
    """Write `last`, its state, `best` where it is, and every `save_period`-th epoch."""
    held, use = state.capture(trainer), usable(trainer)
    if not trainer.accelerator.is_main_process:
        return
    record, weights = trainer.record, trainer.save_dir / folder.WEIGHTS
    reached = {"epoch": record.epoch, "step": record.step, "metrics": record.metrics, "best": record.best}
    about = {**trainer.about, **reached}
    save_state(weights / "last.state.safetensors", held)
    save(weights / "last.safetensors", use, about, told=True)
    if better:
        save(weights / "best.safetensors", use, about, told=True)
    period = trainer.arguments.save_period
    if period > 0 and record.epoch % period == 0 and not record.batch:
        save(weights / f"epoch{record.epoch}.safetensors", use, about, told=True)


def usable(trainer: Trainer) -> dict[str, Any]:
    """The weights to use: the running mean where there is one, whole where they are sharded."""
    own: dict[str, Tensor] = state.weights(trainer)
    mean = {} if trainer.ema is None else {k: state.whole(v) for k, v in trainer.ema.state().items()}
    return own | {k: v for k, v in mean.items() if k in own}
