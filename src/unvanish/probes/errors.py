"""What prevents a diagnosis: a wrong call, or a crash in the user's model."""

from __future__ import annotations

from unvanish.core.trace import Trace


class CheckError(ValueError):
    """The call was wrong: the batch, the loss or the model cannot be measured; the text says what to do."""


class ModelCrash(RuntimeError):
    """The user's model, or its loss, raised.

    `site`: the path of the innermost module that was running ("" for the model itself, "loss" for the loss);
    `trace`: what was measured before; `__cause__`: the original exception.
    """

    def __init__(self, message: str, site: str, trace: Trace | None = None) -> None:
        super().__init__(message)
        self.site = site
        self.trace = trace
