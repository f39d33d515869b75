"""The training loop, on Accelerate, under the public `watch`.

Notable:
- It stops only between steps, so what it saves is whole; a resumed run makes the same steps, bit by bit.
- The order of a step: forward, backward, norm, clip, the watch, the step, the running mean.
- It computes and asks callbacks; `progress` speaks, `saving` writes.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import unvanish
from unvanish.train.arguments import Arguments
from unvanish.train.callbacks import Callbacks
from unvanish.train.checkpoint import folder, saving
from unvanish.train.errors import Diverged
from unvanish.train.loop import devices, optim, randomness
from unvanish.train.loop.clipping import Guard
from unvanish.train.loop.ema import Ema
from unvanish.train.loop.interrupt import Brake, Interrupted
from unvanish.train.loop.progress import Progress
from unvanish.train.loop.record import Record, Sums
from unvanish.train.loop.step import Stepper
from unvanish.train.loop.validation import Validation, validate
from unvanish.train.pictures import gallery
from unvanish.train.report.verdict import diverged

AGREE = 8  # steps from one question to all processes, whether to stop, to the next


class Trainer:
    """One run: everything it is made of, for callbacks to read; `stop = True` ends it after the epoch."""

    validation: Validation | None = None
    judged: Validation | None = None  # the best one
    stop = False
    clock = training_seconds = 0.0
    samples = 0
    _resumed: Mapping[str, Any] | None = None

    def __init__(
        self,
        model: nn.Module,
        arguments: Arguments,
        task: Any,
        data: Any,
        save_dir: Path,
        about: Mapping[str, Any],
        callbacks: Callbacks,
        accelerator: Any,
    ) -> None:
        self.arguments, self.task, self.data, self.callbacks = arguments, task, data, callbacks
        self.save_dir, self.about, self.plain = save_dir, dict(about), model
        self.record = Record(arguments.epochs)
        self.accelerator = accelerator
        self._build()

    # -- what it is made of

    def _build(self) -> None:
        """Loaders, optimizer, running mean, guard, watch."""
        a, made = self.arguments, self.accelerator
        self.train, self.val = devices.loader(made, self.data.train), self.data.val
        if not self.task.summed:  # whose metrics want the whole of it
            self.val = devices.loader(made, self.data.val)
        self.steps_an_epoch = max(1, math.ceil(len(self.train) / a.steps_of))
        usual = self.task.rate(self.about["facts"].get("classes"))
        inner = optim.optimizer(self.plain, a, self.task.name, a.epochs * self.steps_an_epoch, usual)
        self.model, self.optimizer = made.prepare(self.plain, inner)
        self.inner = getattr(self.optimizer, "optimizer", self.optimizer)
        self.sharded = made.distributed_type.value == "FSDP"
        self.plain = made.unwrap_model(self.model)
        self.ema = Ema(self.plain, a.ema_decay, a.ema_tau) if a.ema else None
        self.guard = Guard(a.clip, [p for group in self.inner.param_groups for p in group["params"]])
        self.rate = float(self.inner.param_groups[0]["lr"])
        self.momentum = optim.momentum(a, self.task.name)
        self.first_of_biases = optim.first_of_biases(a, self.task.name, self.inner)
        self.gains = a.gains(self.task)
        criterion = self.task.loss(a.label_smoothing, **self.gains)
        self.make = Stepper(
            made, self.model, self.plain, self.optimizer, criterion, self.guard, self.ema, self._before,
            self.task.samples, self.task.summed,
        )  # fmt: skip
        self.show = Progress(a.verbose and made.is_main_process, self.task.fitness)
        self.watch = self._watched() if a.watch else None
        self.inner.register_step_pre_hook(self.guard.leave_out)  # after the watch has seen the gradient
        randomness.seed(a.seed + made.process_index)
        self.chance = randomness.states()

    def _watched(self) -> Any:
        """The public watch; what it finds is said above the progress."""
        said = ["log"] if self.arguments.verbose else []
        return unvanish.watch(
            self.model,
            self.inner,
            run=self.save_dir,
            budget=self.arguments.budget,
            on_finding=[*said, lambda finding: self.callbacks.run("on_finding", self, finding)],
            scaler=self.accelerator.scaler,
            name=self.save_dir.name,
            ignore=self.task.expected or None,
        )

    # -- the run

    def run(self) -> None:
        """Train until epochs, time or patience end; Interrupted where somebody stopped it."""
        exact = devices.determined(self.arguments.deterministic, self.accelerator)
        with Brake() as self.brake, self.show, exact:
            try:
                self._event("on_train_start")
                self.clock = time.perf_counter() - self.record.elapsed
                while self.record.epoch < self.record.epochs and not self.stop:
                    self._one_epoch()
                self._event("on_train_end")
            finally:
                if self.watch is not None:
                    self.watch.close()

    def _one_epoch(self) -> None:
        record = self.record
        if not record.batch:
            self.chance = randomness.states()
        self._event("on_train_epoch_start")
        self.show.epoch(record.epoch, record.epochs, len(self.train), record.batch)
        self.schedule = optim.schedule(self.arguments, record.epochs, self.steps_an_epoch)
        self.warm = self.schedule.warmup * self.arguments.steps_of
        self.model.train()
        started = time.perf_counter()
        for window in self._windows():
            self._one_step(window)
            stopped, late = self._asked()
            if stopped:
                self._interrupt()
            if late:
                self._late()
                break
        self.training_seconds += time.perf_counter() - started
        self.show.trained()
        self._event("on_train_epoch_end")
        self._close_epoch()

    def _windows(self) -> Iterator[tuple[Any, ...]]:
        """The batches of this epoch that are still to be done, as many at once as make a step."""
        source = self._batches()
        while window := tuple(itertools.islice(source, self._wanted())):
            yield window

    def _wanted(self) -> int:
        """Batches of the step that comes."""
        return optim.batches_of_step(self.arguments, self._done(), self.warm)

    def _done(self) -> int:
        """Batches so far."""
        return self.record.epoch * len(self.train) + self.record.batch

    def _set(self) -> None:
        """Learning rate and momentum of the step that comes."""
        a, step = self.arguments, float(self.record.step)
        if a.ramp:  # steps differ in size, so the batches tell how far it is
            step = self._done() / a.steps_of
        rate = self.rate * self.schedule(step)
        optim.set_rate(self.inner, rate, rate + self.first_of_biases * (1 - self.schedule.warmed(step)))
        if a.warmup_momentum is not None:
            share = min(1.0, self._done() / self.warm) if self.warm else 1.0
            optim.set_momentum(self.inner, a.warmup_momentum + share * (self.momentum - a.warmup_momentum))

    def _batches(self) -> Iterator[Any]:
        resumed, self._resumed = self._resumed, None
        skips = self.record.batch
        if resumed is not None:
            randomness.restore(resumed["start"])
        if hasattr(self.data, "start_epoch"):
            self.data.start_epoch(self.record.epoch, first=skips)
            skips = 0
        source: Iterable[Any] = iter(self.train)
        yield from itertools.islice(source, skips, skips)  # what was done before
        if resumed is not None:
            randomness.restore(resumed["now"])
        yield from source

    def _one_step(self, window: tuple[Any, ...]) -> None:
        record, guard = self.record, self.guard
        if not record.step:
            gallery.first_batch(self, window[0])
        self._set()
        self._event("on_train_batch_start")
        samples = self.make(window)
        self.samples += samples * self.accelerator.num_processes
        record.batch += len(window)
        record.step += 1
        if self.watch is not None:
            self.watch.step(guard.loss)
        if guard.finite:
            record.streak = 0
            record.sums.add(guard.loss, guard.norm, samples)
        else:
            self._left_out()
        self._event("on_train_batch_end")
        self.show.step(guard.loss, len(window), samples * self.accelerator.num_processes, self._health)

    def _left_out(self) -> None:
        """A step had no finite gradient."""
        record = self.record
        record.skipped += 1
        record.streak += 1
        scaling = self.accelerator.scaler is not None  # which finds its scale by such steps
        if record.streak >= self.arguments.nonfinite + 32 * scaling:
            raise Diverged(diverged(self))

    def _before(self) -> None:
        self._event("optimizer_step")
        self._event("on_before_zero_grad")

    # -- an epoch's end

    def _close_epoch(self) -> None:
        record, row = self.record, self._row()
        if self.val is not None and self.arguments.val:
            row |= self._validate()
        record.rows.append(row)
        record.epoch, record.batch, record.sums = record.epoch + 1, 0, Sums()
        record.elapsed = self._elapsed()
        better = record.judge(self.fitness, self.task.higher)
        self.judged = self.validation if better else self.judged
        self._event("on_fit_epoch_end")
        self.show.row(row, self._health())
        if self.accelerator.is_main_process:
            folder.write_rows(self.save_dir, record.rows)
        if self.arguments.save:
            saving.keep(self, better)
            self._event("on_model_save")
        self._enough()

    def _row(self) -> dict[str, Any]:
        sums = self._over_processes()
        return {
            "epoch": self.record.epoch + 1,
            "step": self.record.step,
            "train/loss": sums.mean_loss,
            "lr": float(self.inner.param_groups[0]["lr"]),
            "gradient": sums.mean_norm,
            "skipped": self.record.skipped,
        }

    def _over_processes(self) -> Sums:
        sums = self.record.sums
        if self.accelerator.num_processes == 1:
            return sums
        values = [sums.loss, sums.samples, sums.norm, sums.steps]
        held = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return Sums(*self.accelerator.reduce(held, "sum").tolist())

    def _validate(self) -> dict[str, float]:
        self._event("on_val_start")
        metrics = self.task.metrics(self.about["facts"], decode=getattr(self.data, "decode", None))
        with self.ema.within() if self.ema is not None else contextlib.nullcontext():
            found = validate(
                self.accelerator, self.model, self.plain, self.val, self.task.loss(**self.gains), metrics,
                self._event, self.task.samples,
            )  # fmt: skip
        self.validation, self.record.metrics = found, dict(found.metrics)
        self._event("on_val_end")
        return {"val/loss": found.loss, **{f"metrics/{key}": value for key, value in found.metrics.items()}}

    @property
    def fitness(self) -> float:
        """Of the last validation; NaN without one."""
        return self.record.metrics.get(self.task.fitness, math.nan)

    def _enough(self) -> None:
        """Patience and time."""
        record, a = self.record, self.arguments
        if a.patience and record.waited() >= a.patience and record.epoch < record.epochs:
            self.show.say(
                f"no better {self.task.fitness} for {record.waited()} epochs: it ends here (patience)"
            )
            self.stop = True
        if a.time is not None:
            hours = record.elapsed / record.epoch / 3600
            record.epochs = max(record.epoch, math.floor(a.time / hours))

    # -- stopping and going on

    def _asked(self) -> tuple[bool, bool]:
        """Whether to stop now, and whether the time is up; the same answers on every process."""
        hours = self.arguments.time
        asked = self.brake.pulled, hours is not None and self._elapsed() > 3600 * hours
        if self.accelerator.num_processes == 1:
            return asked
        if self.record.step % AGREE:
            return False, False
        flags = torch.tensor(asked, dtype=torch.int64, device=self.accelerator.device)
        stopped, late = self.accelerator.reduce(flags, "sum").tolist()
        return stopped > 0, late > 0

    def _elapsed(self) -> float:
        """Seconds since the run began, those before a resumption with them."""
        return time.perf_counter() - self.clock

    def _late(self) -> None:
        """The time is up within an epoch: it ends here, validated and saved as any other."""
        record = self.record
        if record.batch < len(self.train):
            self.show.say(f"the time is up: epoch {record.epoch + 1} ends after {record.batch} batches")
        self.stop = True

    def _interrupt(self) -> None:
        self.record.elapsed = self._elapsed()
        place = f"stopped in epoch {self.record.epoch + 1} after step {self.record.step}"
        if not self.arguments.save:
            raise Interrupted(f"{place}; nothing is saved (save=false)")
        saving.keep(self, better=False)
        raise Interrupted(f"{place}; everything is saved, go on with: unvanish train resume={self.save_dir}")

    def resume_at(self, record: Record, random: Mapping[str, Any]) -> None:
        """Take up a run where a record says it was, its random states with it."""
        epochs = self.arguments.epochs
        self.record, self.chance = record, random["start"]
        record.epochs = epochs
        if record.batch:
            self._resumed = random
        else:
            randomness.restore(random["now"])

    def _health(self) -> str:
        if self.watch is None:
            return ""
        found = [f.code for f in self.watch.findings if f.severity != "note"]
        return " ".join(found) if found else "healthy"

    def _event(self, name: str) -> None:
        self.callbacks.run(name, self)
