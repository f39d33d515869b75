"""Ultralytics: `UltralyticsWatch(model)`, then `model.train(...)` as ever.

Notable:
- It hangs on the `YOLO` object by its public callbacks alone, so every training of this object is watched.
- Batches that Ultralytics accumulates are parts of one step; its own clipping comes before the optimizer's
  hooks, so norms are those before clipping only at looks.
- The callbacks and what they belong to can be pickled; a copy watches nothing yet.
- Findings go to Ultralytics' logger, two numbers an epoch beside the learning rates into its results.csv.
- Ultralytics tells callbacks of no exception: the watch ends with the next training, or with the model.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from unvanish.integrations.attachment import PREFIX, Attachment
from unvanish.integrations.logs import write_by
from unvanish.probes.errors import CheckError

LOGGER = "ultralytics"  # the name of its logger
RECORDED = (f"{PREFIX}gradient_norm", f"{PREFIX}warnings")  # what results.csv has not of its own


class UltralyticsWatch:
    """Watches every training of a `YOLO` object, or of another model of Ultralytics.

    `log`: whether results.csv gets the norm of the last step's gradient and how many warnings there are.
    `stop`: True ends the training at an error, after its epoch; or the codes of rules that end it. `options`:
    keyword arguments of `unvanish.watch`; what is wrong with one is raised here. CheckError if the model
    takes no callbacks.
    """

    def __init__(self, model: Any, *, log: bool = True, stop: Any = False, **options: Any) -> None:
        if not callable(getattr(model, "add_callback", None)):
            raise CheckError(
                f"model is a {type(model).__name__}, no YOLO object of Ultralytics; a torch module goes to "
                "unvanish.watch"
            )
        self.attachment = Attachment(stop=stop, **options)
        self.logs, self._recorded = log, False  # whether this training's table has our columns
        model.add_callback("on_train_start", self.on_train_start)
        model.add_callback("on_train_batch_end", self.on_train_batch_end)
        model.add_callback("on_train_epoch_end", self.on_train_epoch_end)
        model.add_callback("on_train_end", self.on_train_end)
        model.add_callback("teardown", self.on_train_end)

    @property
    def watch(self) -> Any:
        """The watch of the present or the last training; None before one."""
        return self.attachment.watch

    def on_train_start(self, trainer: Any) -> None:
        """Attach."""
        scaler = trainer.scaler if trainer.amp else None
        tell = write_by(logging.getLogger(LOGGER))
        self.attachment.open(trainer.model, trainer.optimizer, scaler=scaler, tell=tell)
        self._recorded = self.logs and self.attachment.is_open

    def on_train_batch_end(self, trainer: Any) -> None:
        """Stop if that is wanted."""
        if self.attachment.ends():
            trainer.stop = True

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Put the numbers of the last step beside those of the epoch, and stop if that is wanted."""
        if self._recorded and isinstance(trainer.lr, dict):
            known = self.attachment.metrics()
            trainer.lr.update({name: known.get(name, math.nan) for name in RECORDED})
        self.on_train_batch_end(trainer)

    def on_train_end(self, trainer: Any) -> None:
        """Detach."""
        self.attachment.close()
