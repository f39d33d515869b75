"""skorch: `NeuralNet(..., callbacks=[SkorchWatch()])`.

Notable:
- skorch gives its optimizers a closure, so the watch reads and guards the gradients when the backward ends.
- The net's scikit-learn parameters (`callbacks__SkorchWatch__stop`) are those of `__init__`; a clone of the
  net watches its own training.
- Findings go to `sink`, as the messages of skorch's own callbacks do; to stderr if the net is not verbose.
- skorch tells callbacks of no exception: the watch ends with the data set that the training made.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from skorch.callbacks import Callback

from unvanish.integrations.attachment import PREFIX, Attachment
from unvanish.integrations.logs import spare_bars


class SkorchWatch(Callback):
    """Watches what `fit` trains; numbers of the step go into `net.history`, as "unvanish/gradient_norm".

    `stop`: True ends the training at an error, as `EarlyStopping` does; or the codes of rules that end it.
    `sink`: a function of a text, to which findings go. `options`: keyword arguments of `unvanish.watch`; what
    is wrong with one is raised here.
    """

    def __init__(self, stop: Any = False, options: Any = None, sink: Any = print, **more: Any) -> None:
        self.stop, self.sink = stop, sink
        self.options = {**(options or {}), **more} if more else options  # which clones give back
        self.attachment_ = Attachment(stop=stop, **(self.options or {}))

    @property
    def watch(self) -> Any:
        """The watch of the present or the last training; None before one."""
        return self.attachment_.watch

    def initialize(self) -> SkorchWatch:
        """Read the settings again, which `set_params` may have changed."""
        self.attachment_.close()
        self.attachment_ = Attachment(stop=self.stop, **(self.options or {}))
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Attach."""
        tell = partial(_tell, self.sink) if net.verbose else None
        self.attachment_.open(net.module_, getattr(net, "optimizer_", None), tell=tell)

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        """Remember what the training made."""
        if dataset_train is not None and self.attachment_.is_open:
            self.attachment_.end_with(dataset_train)

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        """Note the step's numbers, and stop if that is wanted."""
        if not training:
            return
        for name, value in self.attachment_.metrics().items():
            net.history.record_batch(name, value)
        if self.attachment_.ends():
            raise KeyboardInterrupt  # by which callbacks of skorch end a training

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Give the table of epochs the norm of the last step's gradient."""
        norm = self.attachment_.metrics().get(f"{PREFIX}gradient_norm")
        if norm is not None:
            net.history.record(f"{PREFIX}gradient_norm", norm)

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Detach."""
        self.attachment_.close()


def _tell(sink: Any, text: str, severity: str) -> None:
    with spare_bars():
        sink(text)
