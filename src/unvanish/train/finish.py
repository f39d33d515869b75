"""The end of a run: the best weights back into the model, pictures, the report, the results.

Notable: pictures and pages are extras; where their library is missing or fails, the run has still succeeded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unvanish.core.plain import plain
from unvanish.lab.models.network import Network
from unvanish.train.checkpoint import saving
from unvanish.train.checkpoint.file import fill, load, whole
from unvanish.train.pictures import curves, gallery, history
from unvanish.train.report.results import Results
from unvanish.train.report.stages import Stage, stages
from unvanish.train.report.verdict import verdict

if TYPE_CHECKING:
    from unvanish.train.model import Model
    from unvanish.train.trainer import Trainer


def finished(model: Model, trainer: Trainer) -> Results:
    """The results of a run that ended, written into its folder."""
    use = saving.usable(trainer)
    results = outcome(trainer)
    main = trainer.accelerator.is_main_process
    if main:
        whole(trainer.save_dir / "results.json", json.dumps(plain(results.summary()), indent=1) + "\n")
    trainer.accelerator.wait_for_everyone()
    model.network, model.results = trainer.plain.eval(), results
    model.about = {**trainer.about}
    if not trainer.sharded:
        tensors = load(results.best).tensors if results.best is not None else use
        fill(trainer.plain.to("cpu"), tensors, results.best or "the last weights")
    if main and trainer.arguments.plots:
        drawn(trainer, results)
    trainer.accelerator.wait_for_everyone()
    trainer.show.say(str(results))
    return results


def outcome(trainer: Trainer) -> Results:
    """What the run came to; the metrics are those of the best epoch."""
    record, task = trainer.record, trainer.task
    best = record.rows[record.best_epoch - 1] if record.best_epoch else (record.rows or [{}])[-1]
    metrics = {k.removeprefix("metrics/"): v for k, v in best.items() if k.startswith("metrics/")}
    done, judged = trainer.validation, trainer.judged or trainer.validation
    samples = max(1.0, trainer.samples)
    speed = {"training": 1e3 * trainer.training_seconds / samples}
    if done is not None:
        speed["validation"] = done.milliseconds
    return Results(
        task.name,
        metrics,
        record.best,
        trainer.save_dir,
        speed,
        tuple(trainer.watch.findings) if trainer.watch is not None else (),
        verdict(trainer),
        record.epoch,
        record.step,
        record.skipped,
        record.best_epoch,
        record.elapsed,
        best.get("val/loss", best.get("train/loss", float("nan"))),
        tuple(record.rows),
        judged.tables if judged is not None else {},
        tuple(trainer.about["names"]),
        by_stage(trainer),
    )


def by_stage(trainer: Trainer) -> tuple[Stage, ...]:
    """The gradient by the parts of a detector that was watched."""
    network = trainer.plain
    if trainer.watch is None or not trainer.task.summed or not isinstance(network, Network):
        return ()
    return stages(network, trainer.watch.diagnosis().trace)


def drawn(trainer: Trainer, results: Results) -> None:
    """Pictures of the run and of what it finds, and the watch's page, as far as their library is there."""
    folder, say = trainer.save_dir, trainer.show.say

    def charts() -> None:
        path = folder / "results.png"
        if history.draw(results.rows, folder.name, path, results.tables, results.names) is None:
            say(history.MISSING)
            return
        curves.draw(results.tables, results.names, folder)
        if trainer.watch is not None:
            page(folder)

    parts: list[Callable[[], object]] = [charts]
    if trainer.task.summed and not trainer.sharded:
        parts.append(lambda: gallery.validated(trainer))
    for part in parts:
        try:
            part()
        except Exception as error:
            say(f"the pictures could not be drawn: {error}")


def page(folder: Any) -> None:
    """The report of the watch beside its store."""
    from unvanish.reports.run import html as run_html
    from unvanish.store import open_run

    run_html.save(open_run(folder), folder / "report.html")
