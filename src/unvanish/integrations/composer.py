"""Composer: `Trainer(..., callbacks=ComposerWatch())`.

Notable: microbatches are parts of one step, whose loss the watch adds up. Composer calls `close` whatever
happens, and `fit_end` when a training ends. Findings go to its Python logger, and as a table to its loggers.
"""

from __future__ import annotations

import logging
from typing import Any

from composer import Callback, Logger, State

from unvanish.integrations.attachment import PREFIX, Attachment
from unvanish.integrations.logs import write_by

COLUMNS = ["code", "name", "severity", "cause"]


class ComposerWatch(Callback):
    """Watches what a Composer Trainer trains; numbers of the step go to its loggers.

    `stop`: True ends the training at an error by `state.stop_training()`; or the codes of rules that end it.
    `options`: keyword arguments of `unvanish.watch`; what is wrong with one is raised here.
    """

    def __init__(self, *, stop: Any = False, **options: Any) -> None:
        super().__init__()
        self.attachment = Attachment(stop=stop, **options)

    @property
    def watch(self) -> Any:
        """The watch of the present or the last training; None before one."""
        return self.attachment.watch

    def fit_start(self, state: State, logger: Logger) -> None:
        """Attach."""
        done = int(state.timestamp.batch)
        self.attachment.open(
            state.model,
            list(state.optimizers),
            scaler=state.scaler,
            start=done or None,
            tell=write_by(logging.getLogger("composer.unvanish")),
        )

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log the step's numbers, and stop if that is wanted."""
        logger.log_metrics(self.attachment.metrics())
        if self.attachment.ends():
            state.stop_training()

    def fit_end(self, state: State, logger: Logger) -> None:
        """Detach, and give the loggers a table of what was found."""
        self.attachment.close()
        rows = [[f.code, f.name, f.severity, f.cause] for f in self.attachment.take_findings()]
        if rows:
            logger.log_table(COLUMNS, rows, f"{PREFIX}findings", int(state.timestamp.batch))

    def close(self, state: State, logger: Logger) -> None:
        """Detach, after an exception, too."""
        self.attachment.close()
