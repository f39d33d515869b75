"""Callbacks: functions of the trainer, called at events under the names that YOLO users know.

Notable: every listed event fires, `optimizer_step` and `on_before_zero_grad` included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unvanish.core.plain import name_value
from unvanish.core.registry import suggest
from unvanish.train.errors import TrainError

EVENTS = (
    "on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_start", "on_train_epoch_start",
    "on_train_batch_start", "optimizer_step", "on_before_zero_grad", "on_train_batch_end",
    "on_train_epoch_end", "on_val_start", "on_val_batch_start", "on_val_batch_end", "on_val_end",
    "on_fit_epoch_end", "on_model_save", "on_finding", "on_train_end", "on_predict_start", "on_predict_end",
    "on_export_start", "on_export_end",
)  # fmt: skip


class Callbacks:
    """The functions by event."""

    def __init__(self) -> None:
        self.by_event: dict[str, list[Callable[..., Any]]] = {}

    def add(self, event: str, function: Callable[..., Any]) -> None:
        """Register a function for an event; TrainError if the event is unknown."""
        if not isinstance(event, str) or event not in EVENTS:
            near = suggest(str(event), EVENTS)
            raise TrainError(f"there is no event {name_value(event)}{near}; there are {', '.join(EVENTS)}")
        if not callable(function):
            raise TrainError(f"what is called at {event} is {name_value(function)}, which cannot be called")
        self.by_event.setdefault(event, []).append(function)

    def run(self, event: str, *arguments: Any) -> None:
        """Call the functions of an event, in the order in which they were added."""
        for function in self.by_event.get(event, ()):
            function(*arguments)
