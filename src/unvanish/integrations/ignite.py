"""PyTorch-Ignite: `IgniteWatch(model, optimizer).attach(trainer)`.

Notable:
- An engine knows neither model nor optimizer, so they are given here.
- Findings go to the engine's logger.
- Ignite raises an exception only if nothing handles it. A handler of ours would swallow it, so it raises it
  again, unless others are there to handle it.
"""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events

from unvanish.integrations.attachment import Attachment
from unvanish.integrations.logs import write_by
from unvanish.probes.errors import CheckError


class IgniteWatch:
    """Watches what an engine trains; numbers of the step go into `engine.state.metrics`.

    `optimizer`, `loss`, `scaler`: as for `unvanish.watch`. `stop`: True ends the training at an error by
    `engine.terminate()`; or the codes of rules that end it. `options`: keyword arguments of `unvanish.watch`;
    what is wrong with one is raised here.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any = None,
        loss: Any = None,
        *,
        scaler: Any = None,
        stop: Any = False,
        **options: Any,
    ) -> None:
        self._model, self._optimizer, self._loss, self._scaler = model, optimizer, loss, scaler
        self.attachment = Attachment(stop=stop, **options)

    @property
    def watch(self) -> Any:
        """The watch of the present or the last training; None before one."""
        return self.attachment.watch

    def attach(self, engine: Engine) -> IgniteWatch:
        """Watch every training that this engine runs; CheckError if it is no engine."""
        if not isinstance(engine, Engine):
            raise CheckError(f"engine is a {type(engine).__name__}, not an ignite.engine.Engine")
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.COMPLETED, self._end)
        engine.add_event_handler(Events.TERMINATE, self._end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
        return self

    def _start(self, engine: Engine) -> None:
        resumed = engine.state.iteration or None
        tell = write_by(engine.logger)
        self.attachment.open(
            self._model, self._optimizer, self._loss, scaler=self._scaler, start=resumed, tell=tell
        )

    def _note(self, engine: Engine) -> None:
        engine.state.metrics.update(self.attachment.metrics())
        if self.attachment.ends():
            engine.terminate()

    def _end(self, engine: Engine) -> None:
        self.attachment.close()

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self.attachment.close()
        if not engine.has_event_handler(Another(self._fail), Events.EXCEPTION_RAISED):
            raise error


class Another:
    """Equal to every handler but one, so that an engine can be asked for others."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def __eq__(self, other: object) -> bool:
        return bool(other != self._handler)

    __hash__ = None  # type: ignore[assignment]
