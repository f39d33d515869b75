"""The end of a run: the best weights back into the network, results, pictures, the report.

Notable: pictures and pages are extras; if their library is missing or fails, the run has still succeeded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from unvanish.core.plain import plain
from unvanish.lab.models.network import Network
from unvanish.reports.run import html as run_html
from unvanish.store import open_run
from unvanish.store.files import write_text
from unvanish.train.checkpoint import folder, saving
from unvanish.train.checkpoint.file import fill, load
from unvanish.train.learner import Learner
from unvanish.train.loop.run import TrainingRun
from unvanish.train.pictures import curves, gallery, history
from unvanish.train.report.results import Results
from unvanish.train.report.stages import Stage, measure_stages
from unvanish.train.report.verdict import describe_run


def finish(learner: Learner, run: TrainingRun) -> Results:
    """Write the results of a run that ended, and give its best weights to the learner."""
    engine, request = run.engine, run.request
    weights = saving.average_weights(run)
    results = summarize(run)
    if engine.main:
        text = json.dumps(plain(results.summary()), indent=1) + "\n"
        write_text(request.save_dir / folder.END, text, "results")
    engine.accelerator.wait_for_everyone()
    learner.network, learner.results = engine.network.eval(), results
    learner.about = {**request.about}
    learner.loaded = str(results.best or request.save_dir)
    if not engine.sharded:
        tensors = load(results.best).tensors if results.best is not None else weights
        fill(engine.network.to("cpu"), tensors, results.best or "the last weights")
    if engine.main and request.arguments.plots:
        draw_all(run, results)
    engine.accelerator.wait_for_everyone()
    run.progress.say(str(results))
    return results


def summarize(run: TrainingRun) -> Results:
    """The results of a run; the metrics are those of the best epoch."""
    record, task, validations = run.record, run.request.task, run.validations
    best = record.rows[record.best_epoch - 1] if record.best_epoch else (record.rows or [{}])[-1]
    metrics = {k.removeprefix("metrics/"): v for k, v in best.items() if k.startswith("metrics/")}
    speed = {"training": 1e3 * run.clock.training / max(1.0, run.clock.samples)}
    if validations.last is not None:
        speed["validation"] = validations.last.milliseconds
    judged = validations.best or validations.last
    return Results(
        task.name,
        metrics,
        record.best,
        run.request.save_dir,
        speed,
        tuple(run.watch.findings) if run.watch is not None else (),
        describe_run(run),
        record.epoch,
        record.step,
        record.skipped,
        record.best_epoch,
        record.elapsed,
        best.get("val/loss", best.get("train/loss", float("nan"))),
        tuple(record.rows),
        judged.tables if judged is not None else {},
        tuple(run.request.about["names"]),
        find_stages(run),
    )


def find_stages(run: TrainingRun) -> tuple[Stage, ...]:
    """The gradient by the parts of a detector that was watched; empty for other networks."""
    network = run.engine.network
    if run.watch is None or not run.request.task.summed or not isinstance(network, Network):
        return ()
    return measure_stages(network, run.watch.diagnosis().trace)


def draw_all(run: TrainingRun, results: Results) -> None:
    """Draw charts and examples, and write the watch's page; what fails is reported."""
    parts: list[Callable[[], object]] = [lambda: draw_charts(run, results)]
    if not run.engine.sharded:
        parts.append(lambda: gallery.draw_validation(run))
    for part in parts:
        try:
            part()
        except Exception as error:
            run.progress.say(f"the pictures could not be drawn: {error}")


def draw_charts(run: TrainingRun, results: Results) -> None:
    """Draw the run's history and curves, and write its page; says so if the chart library is missing."""
    folder = run.request.save_dir
    path = folder / "results.png"
    if history.draw(results.rows, folder.name, path, results.tables, results.names) is None:
        run.progress.say(history.MISSING)
        return
    curves.draw(results.tables, results.names, folder)
    if run.watch is not None:
        write_page(folder)


def write_page(folder: Path) -> None:
    """Write the watch's report next to its store."""
    run_html.save(open_run(folder), folder / "report.html")
