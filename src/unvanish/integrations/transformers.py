"""Hugging Face's Trainer, and those of TRL, PEFT, sentence-transformers: `callbacks=[TransformersWatch()]`.

Notable:
- The loss is read where its backward begins; the Trainer divides the losses of an accumulated step so that
  they add up. Gradients are read when the backward has ended, before the Trainer clips, and before the step.
- The Trainer has no event for exceptions: the watch ends with the Trainer, with the next `train()`, or with
  the interpreter, whichever comes first, and does nothing until then.
- Findings go to the library's logger, whose level is that of `transformers.logging`.
- Reporters are told of a log before we are, so the step's numbers are in `trainer.state.log_history`, and
  callbacks that come later see them.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.utils.logging import get_logger

from unvanish.integrations.attachment import PREFIX, Attachment
from unvanish.integrations.logs import write_by


class TransformersWatch(TrainerCallback):  # its library is not read here
    """Watches what a Trainer trains.

    `stop`: True ends the training at an error by `control.should_training_stop`; or the codes of rules that
    end it. `options`: keyword arguments of `unvanish.watch`; what is wrong with one is raised here.
    """

    def __init__(self, *, stop: Any = False, **options: Any) -> None:
        self.attachment = Attachment(stop=stop, **options)

    @property
    def watch(self) -> Any:
        """The watch of the present or the last training; None before one."""
        return self.attachment.watch

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach."""
        optimizer, model = kwargs.get("optimizer"), kwargs.get("model")
        self.attachment.close()
        self.attachment.open(
            model,
            optimizer,
            scaler=getattr(optimizer, "scaler", None),
            start=state.global_step or None,
            summed=True,
            tell=write_by(get_logger("transformers.unvanish")),
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Stop, if that is wanted."""
        control.should_training_stop |= self.attachment.ends()
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add the step's numbers, and what was found since the last log."""
        if logs is None or "loss" not in logs:  # it is of an evaluation
            return
        numbers: dict[str, Any] = dict(self.attachment.metrics())
        logs.update(numbers)
        if found := self.attachment.take_findings():
            numbers[PREFIX + "findings"] = "; ".join(f"{f.code} {f.name}: {f.cause}" for f in found)
        if state.log_history:
            state.log_history[-1].update(numbers)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Detach."""
        self.attachment.close()
