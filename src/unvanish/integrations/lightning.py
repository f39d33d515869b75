"""Lightning, under both of its names: `Trainer(callbacks=[LightningWatch()])`.

Notable:
- The callback is an instance of the `Callback` of every Lightning that is loaded, `lightning.pytorch` and
  `pytorch_lightning`, which are two packages with equal classes; neither is imported before one is made.
- The loss is read where its backward begins, the gradients when it has ended and again before the step, so
  precision, accumulation and clipping are Lightning's own affair.
- Findings go to the logger of that package, as its own warnings do, and as texts to a TensorBoard logger.
- Fabric needs no callback: `unvanish.watch` takes what `fabric.setup` returns.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any

from unvanish.core.caution import caution
from unvanish.integrations.attachment import PREFIX, Attachment
from unvanish.integrations.logs import write_by

LIBRARIES = ("lightning", "pytorch_lightning")
PACKAGES = ("lightning.pytorch", "pytorch_lightning")
GIVEN = ("log", "log_dict")  # by Lightning: methods of the module
_classes: dict[tuple[type, ...], type] = {}


class LightningWatch:
    """Watches what a Lightning Trainer trains.

    `log`: whether the step's numbers are logged by `pl_module.log`, as "unvanish/gradient_norm" and so on.
    `stop`: True ends the training at an error by `trainer.should_stop`; or the codes of rules that end it.
    `options`: keyword arguments of `unvanish.watch`; what is wrong with one is raised here.
    """

    def __new__(cls, *_: Any, **__: Any) -> LightningWatch:
        """An instance of a class that is a Lightning callback, too."""
        found: LightningWatch = object.__new__(_derive(cls))
        return found

    def __init__(self, *, log: bool = True, stop: Any = False, **options: Any) -> None:
        self.attachment = Attachment(stop=stop, **options)
        self.logs = log  # Lightning gives every callback a `log` of its own
        self._logged = 0  # steps when numbers were last logged

    @property
    def watch(self) -> Any:
        """The watch of the present or the last training; None before one."""
        return self.attachment.watch

    @property
    def state_key(self) -> str:
        """Its name in checkpoints, under which nothing is kept."""
        return LightningWatch.__name__

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach; not if another one of us does, which is said if this one was asked for something."""
        if next(c for c in trainer.callbacks if isinstance(c, LightningWatch)) is not self:
            if self.attachment.asks:
                caution(
                    "unvanish: another LightningWatch came first, so the arguments of this one do nothing"
                )
            return
        optimizers = list(trainer.optimizers)
        resumed = trainer.global_step if len(optimizers) == 1 and trainer.global_step else None
        model = trainer.strategy.model  # DistributedDataParallel and the like stand around the module
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._logged = 0
        self.attachment.open(
            pl_module if model is None else model,
            optimizers,
            scaler=scaler,
            start=resumed,
            tell=_find_voice(trainer),
        )

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Log the step's numbers, and stop if that is wanted."""
        if self.attachment.ends():
            trainer.should_stop = True
        steps = self.attachment.steps
        if steps == self._logged:  # a part of an accumulated step
            return
        self._logged = steps
        every = trainer.log_every_n_steps
        if self.logs and every and (trainer.global_step % every == 0 or steps == 1):
            for name, value in self.attachment.metrics().items():
                pl_module.log(name, value)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach."""
        self.attachment.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach; an interrupt comes here, too."""
        self.attachment.close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Detach, if nothing did before."""
        self.attachment.close()

    def __reduce__(self) -> Any:
        own = type(self)
        state = {name: value for name, value in vars(self).items() if name not in GIVEN}
        return _rebuild, (own.__bases__[0] if own in _classes.values() else own, state)


def _find_voice(trainer: Any) -> Callable[[str, str], None]:
    """What writes into the logger of the trainer's package, and into those of its own that take texts."""
    package = next((name for name in PACKAGES if type(trainer).__module__.startswith(name)), PACKAGES[0])
    write, kept = write_by(logging.getLogger(f"{package}.unvanish")), weakref.ref(trainer)

    def tell(text: str, severity: str) -> None:
        write(text, severity)
        if (at := kept()) is None:
            return
        for logger in at.loggers:
            if type(logger).__name__ == "TensorBoardLogger":
                logger.experiment.add_text(f"{PREFIX}findings", text, at.global_step)

    return tell


def _derive(cls: type) -> type:
    """The class of the instances: `cls`, and the callback of each Lightning that is loaded."""
    loaded = [sys.modules[name] for name in PACKAGES if name in sys.modules]
    if not loaded:
        loaded = [importlib.import_module(_find_package())]
    bases = tuple(package.Callback for package in loaded)
    if issubclass(cls, bases):
        return cls
    key = (cls, *bases)
    if key not in _classes:
        _classes[key] = type(cls.__name__, key, {"__module__": cls.__module__, "__doc__": cls.__doc__})
    return _classes[key]


def _find_package() -> str:
    """The Lightning that is installed; ImportError if none is."""
    for name in PACKAGES:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return name
    raise ImportError("LightningWatch needs Lightning: pip install 'unvanish[lightning]'")


def _rebuild(cls: Any, state: dict[str, Any]) -> Any:
    """A copy, which watches nothing yet."""
    copied: Any = cls.__new__(cls)
    vars(copied).update(state)
    return copied
