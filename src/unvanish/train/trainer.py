"""The training loop, on Accelerate, under the public `watch`.

Notable:
- It stops only between steps, so what it saves is whole; a resumed run makes the same steps, bit by bit.
- The order of a step: forward, backward, norm, clip, the watch, the step, the running mean.
- It computes and calls callbacks; `progress` prints, `saving` writes.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

from torch import nn

from unvanish.core.diagnosis import Finding
from unvanish.train.callbacks import Callbacks
from unvanish.train.checkpoint import saving
from unvanish.train.errors import Diverged
from unvanish.train.loop import devices
from unvanish.train.loop.clipping import Guard
from unvanish.train.loop.interrupt import Brake, Interrupted
from unvanish.train.loop.parts import list_columns
from unvanish.train.loop.record import Record, Sums
from unvanish.train.loop.run import Request, TrainingRun, build_run
from unvanish.train.loop.step import Stepper
from unvanish.train.loop.validation import validate
from unvanish.train.pictures import gallery
from unvanish.train.report.verdict import explain_divergence

AGREE = 8  # with several processes: steps between two questions whether to stop


class Trainer:
    """Trains a run; callbacks receive it.

    They read `record`, `plain` (the network), `inner` (its optimizer), `guard` and `watch`; all else is in
    `run`. `stop = True` ends the run after the epoch.
    """

    def __init__(
        self, network: nn.Module, data: Any, request: Request, callbacks: Callbacks, accelerator: Any
    ) -> None:
        a, task = request.arguments, request.task
        self.callbacks, self.stop, self.brake = callbacks, False, Brake()
        criterion = task.loss(a.label_smoothing, **a.gains(task))
        self.run: TrainingRun = build_run(network, data, request, accelerator, self._announce)
        self.stepper = Stepper(self.run.engine, criterion, self._before_step, task.samples, task.summed)

    # -- what callbacks read

    @property
    def record(self) -> Record:
        """How far the run is."""
        return self.run.record

    @property
    def plain(self) -> nn.Module:
        """The network, without wrappers."""
        return self.run.engine.network

    @property
    def inner(self) -> Any:
        """Torch's own optimizer."""
        return self.run.engine.inner

    @property
    def guard(self) -> Guard:
        """Norm and loss of the last step, and whether they were finite."""
        return self.run.engine.guard

    @property
    def watch(self) -> Any:
        """The watch, or None."""
        return self.run.watch

    # -- the run

    def train(self) -> None:
        """Train until epochs, time or patience end; Interrupted if a signal stops it."""
        run = self.run
        exact = devices.deterministic(run.request.arguments.deterministic, run.engine.accelerator)
        with self.brake, run.progress, exact:
            try:
                self._event("on_train_start")
                run.clock.start(run.record.elapsed)
                while run.record.epoch < run.record.epochs and not self.stop:
                    self._train_epoch()
                self._event("on_train_end")
            finally:
                self.close()

    def close(self) -> None:
        """Take the watch off; harmless when repeated."""
        if self.run.watch is not None:
            self.run.watch.close()

    def _train_epoch(self) -> None:
        run, record = self.run, self.run.record
        run.batches.begin_epoch(record)
        self._event("on_train_epoch_start")
        run.progress.begin_epoch(record.epoch, record.epochs, len(run.batches), record.batch)
        run.rates.plan(record.epochs)
        run.engine.model.train()
        started = time.perf_counter()
        for window in run.batches.windows(record, lambda: run.rates.count_batches(record)):
            self._step(window)
            stopped, late = self._ask_to_stop()
            if stopped:
                self._interrupt()
            if late:
                self._cut_epoch()
                break
        run.clock.training += time.perf_counter() - started
        run.progress.end_steps()
        self._event("on_train_epoch_end")
        self._close_epoch()

    def _step(self, window: tuple[Any, ...]) -> None:
        run, record, guard = self.run, self.run.record, self.run.engine.guard
        if not record.step:
            gallery.draw_first_batch(run, window[0])
        run.rates.set(run.engine.inner, record)
        self._event("on_train_batch_start")
        samples, parts = self.stepper(window)
        everywhere = samples * run.engine.processes
        run.clock.samples += everywhere
        record.batch += len(window)
        record.step += 1
        if run.watch is not None:
            run.watch.step(guard.loss)
        if guard.finite:
            record.streak = 0
            record.sums.add(guard.loss, guard.norm, samples, parts)
        else:
            self._skip_step()
        self._event("on_train_batch_end")
        run.progress.step(guard.loss, len(window), everywhere, run.health)

    def _skip_step(self) -> None:
        """Count a step without a finite gradient; Diverged after too many in a row."""
        run, record = self.run, self.run.record
        record.skipped += 1
        record.streak += 1
        scaling = run.engine.accelerator.scaler is not None  # it finds its scale by such steps
        if record.streak >= run.request.arguments.nonfinite + 32 * scaling:
            raise Diverged(explain_divergence(run))

    # -- an epoch's end

    def _close_epoch(self) -> None:
        run, record, row = self.run, self.run.record, self._row()
        if run.batches.val is not None and run.request.arguments.val:
            row |= self._validate()
        record.rows.append(row)
        record.epoch, record.batch, record.sums = record.epoch + 1, 0, Sums()
        record.elapsed = run.clock.elapsed()
        before = record.best, record.best_epoch
        better = record.judge(run.fitness, run.request.task.higher)
        if better:
            run.validations.best = run.validations.last
        self._event("on_fit_epoch_end")
        run.progress.print_row(row, run.health())
        if saving.try_to_save(run, better):
            self._event("on_model_save")
        elif better and run.request.arguments.save:
            record.best, record.best_epoch = before  # the best one is the one that is saved
        self._apply_limits()

    def _row(self) -> dict[str, Any]:
        engine, record, sums = self.run.engine, self.run.record, self.run.record.sums
        names = list(sums.parts)
        loss, samples, norm, steps, *parts = engine.sum(
            [sums.loss, sums.samples, sums.norm, sums.steps, *sums.parts.values()]
        )
        sums = Sums(loss, samples, norm, steps, dict(zip(names, parts, strict=True)))
        return {
            "epoch": record.epoch + 1,
            "step": record.step,
            "train/loss": sums.mean_loss,
            **list_columns("train", sums.mean_parts),
            "lr": float(engine.inner.param_groups[0]["lr"]),
            "gradient": sums.mean_norm,
            "skipped": record.skipped,
        }

    def _validate(self) -> dict[str, float]:
        self._event("on_val_start")
        run, engine, task = self.run, self.run.engine, self.run.request.task
        facts, data = run.request.about["facts"], run.batches.data
        metrics = task.metrics(facts, decode=getattr(data, "decode", None))
        criterion = task.loss(**run.request.arguments.gains(task))
        with engine.ema.within() if engine.ema is not None else contextlib.nullcontext():
            found = validate(
                engine.accelerator, engine.model, engine.network, run.batches.val, criterion, metrics,
                self._event, task.samples,
            )  # fmt: skip
        run.validations.last, run.record.metrics = found, dict(found.metrics)
        self._event("on_val_end")
        losses = {"val/loss": found.loss, **list_columns("val", found.parts)}
        return losses | {f"metrics/{key}": value for key, value in found.metrics.items()}

    def _apply_limits(self) -> None:
        """Stop if patience has run out, and fit the number of epochs into the time."""
        run, record, a = self.run, self.run.record, self.run.request.arguments
        waited = record.since_best()
        if a.patience and waited >= a.patience and record.epoch < record.epochs:
            run.progress.say(f"no better {run.request.task.fitness} for {waited} epochs: stopped (patience)")
            self.stop = True
        if a.time is not None:
            hours = record.elapsed / record.epoch / 3600
            record.epochs = max(record.epoch, math.floor(a.time / hours))

    # -- stopping

    def _ask_to_stop(self) -> tuple[bool, bool]:
        """Whether a signal asks to stop now, and whether the time is up; the same on every process."""
        engine, hours = self.run.engine, self.run.request.arguments.time
        asked = self.brake.pulled, hours is not None and self.run.clock.elapsed() > 3600 * hours
        if engine.processes == 1:
            return asked
        if self.run.record.step % AGREE:
            return False, False
        stopped, late = engine.sum(asked)
        return stopped > 0, late > 0

    def _cut_epoch(self) -> None:
        """The time is up within an epoch: it ends here, validated and saved as any other."""
        record = self.run.record
        if record.batch < len(self.run.batches):
            place = f"epoch {record.epoch + 1} ends after {record.batch} batches"
            self.run.progress.say(f"the time is up: {place}")
        self.stop = True

    def _interrupt(self) -> None:
        """Save, if wanted, and raise Interrupted."""
        run, record = self.run, self.run.record
        record.elapsed = run.clock.elapsed()
        place = f"stopped in epoch {record.epoch + 1} after step {record.step}"
        if not run.request.arguments.save:
            raise Interrupted(f"{place}; nothing is saved (save=false)")
        saving.save_run(run, better=False)
        resume = f"unvanish train resume={run.request.save_dir}"
        raise Interrupted(f"{place}; everything is saved, continue with: {resume}")

    # -- events

    def _before_step(self) -> None:
        self._event("optimizer_step")
        self._event("on_before_zero_grad")

    def _announce(self, finding: Finding) -> None:
        self.callbacks.run("on_finding", self, finding)

    def _event(self, name: str) -> None:
        self.callbacks.run(name, self)
