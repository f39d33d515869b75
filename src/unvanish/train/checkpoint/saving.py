"""The checkpoints that a run writes: last, best, every n-th epoch.

Notable: the state comes last, and the rows of all steps before it are in the record by then. So whenever a
run is killed, it resumes from a moment that all its files have reached; what they hold beyond it is made
again, the same, or taken back.
"""

from __future__ import annotations

from typing import Any

from unvanish.core.caution import caution
from unvanish.train.checkpoint import folder, state
from unvanish.train.checkpoint.file import save, save_state
from unvanish.train.errors import TrainError
from unvanish.train.loop.run import TrainingRun


def save_run(run: TrainingRun, better: bool) -> None:
    """Write `last` and its state, `best` if it is better, and every `save_period`-th epoch."""
    captured, weights = state.capture(run), average_weights(run)
    if run.watch is not None:
        run.watch.flush()
    if not run.engine.main:
        return
    record, target = run.record, run.request.save_dir / folder.WEIGHTS
    reached = {"epoch": record.epoch, "step": record.step, "metrics": record.metrics, "best": record.best}
    about = {**run.request.about, **reached}
    if better:
        save(target / "best.safetensors", weights, about, readable=True)
    period = run.request.arguments.save_period
    if period > 0 and record.epoch % period == 0 and not record.batch:
        save(target / f"epoch{record.epoch}.safetensors", weights, about, readable=True)
    save(target / "last.safetensors", weights, about, readable=True)
    save_state(target / "last.state.safetensors", captured)


def try_to_save(run: TrainingRun, better: bool) -> bool:
    """Save at an epoch's end; whether that worked. A full disk is said, and the training goes on."""
    record = run.record
    try:
        if run.engine.main:
            folder.write_rows(run.request.save_dir, record.rows)
        if run.request.arguments.save:
            save_run(run, better)
    except (OSError, TrainError) as error:
        ahead = "the training goes on, and tries again after the next"
        caution(f"unvanish: epoch {record.epoch} is not saved: {error}; {ahead}")
        return False
    return run.request.arguments.save


def average_weights(run: TrainingRun) -> dict[str, Any]:
    """The weights to use, whole if they are sharded: the running mean if there is one."""
    own, ema = state.collect_weights(run.engine), run.engine.ema
    mean = {} if ema is None else {k: state.gather(v) for k, v in ema.state().items()}
    return own | {k: v for k, v in mean.items() if k in own}
