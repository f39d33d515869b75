"""Accelerate: `with AccelerateWatch(accelerator, model, optimizer):` around a loop that stays as it is.

Notable:
- `unvanish.watch(model, optimizer)` takes what `accelerator.prepare` returns, too; this adds the
  accelerator's own means: its GradScaler, its logger, its trackers, its trigger.
- A step that `accelerator.accumulate` leaves out is no step; the loss is that of the whole accumulated step,
  as `accelerator.backward` divides each part.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from accelerate import Accelerator
from accelerate.logging import get_logger

from unvanish.core.caution import caution, summarize
from unvanish.core.plain import name_value
from unvanish.integrations.attachment import Attachment
from unvanish.integrations.logs import write_by
from unvanish.probes.errors import CheckError
from unvanish.probes.live.guard import PassingEntry


class AccelerateWatch:
    """Watches a training on an Accelerator; a context manager.

    `log`: in so many steps the step's numbers go once to `accelerator.log`; 0: never. `stop`: True calls
    `accelerator.set_trigger()` at an error, for a loop that asks `check_trigger()`; or the codes of rules.
    `options`: keyword arguments of `unvanish.watch`. CheckError for another accelerator.
    """

    def __init__(
        self,
        accelerator: Any,
        model: Any,
        optimizer: Any,
        *,
        log: int = 10,
        stop: Any = False,
        **options: Any,
    ) -> None:
        if not isinstance(accelerator, Accelerator):
            raise CheckError(f"accelerator is {name_value(accelerator)}, not an accelerate.Accelerator")
        self.attachment = Attachment(stop=stop, **options)
        self.log, self._accelerator = log, accelerator
        self._triggered = False
        tell = write_by(get_logger("accelerate.unvanish").logger)  # which rank tells is known already
        self.attachment.open(model, optimizer, scaler=accelerator.scaler, summed=True, tell=tell)
        watching = self.attachment.watch
        if watching is not None and not watching.failure:
            for one in watching.watched.optimizers:
                entry = PassingEntry(watching.guard, self._hear_step)
                hang = watching.guard.hang_on_step
                watching.guard.run(hang, one.register_step_post_hook, entry)

    @property
    def watch(self) -> Any:
        """The watch; None if the training could not be watched."""
        return self.attachment.watch

    def close(self) -> None:
        """Detach everything and write what is left; harmless when repeated."""
        self.attachment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hear_step(self, *_: Any) -> None:
        """An optimizer has stepped."""
        steps = self.attachment.steps
        if self.log and steps % self.log == 0 and self._accelerator.trackers:
            try:
                self._accelerator.log(self.attachment.metrics(), step=steps)
            except Exception as error:
                self.log = 0
                caution(f"unvanish: a tracker failed ({summarize(error)}); nothing more goes to the trackers")
        if not self._triggered and self.attachment.wants_stop:
            self._triggered = True
            self._accelerator.set_trigger()
