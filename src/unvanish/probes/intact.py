"""`check` leaves no trace: everything a forward may change is put back, bit for bit, however it ends.

Notable:
- What the model, the batch and the loss reach is put back in place (`reach`), and so are the random
  generators, the modes and the settings of the process (`process`). What cannot be put back is said.
- Putting back may be done again: an interrupt, even in the midst of it, only makes it start over, and
  signals wait until it is done (`held_signals`). So the context is entered twice, `with intact(model) as
  kept, kept:`; if the first way out is broken off at its first line, the second one does the work.
- While we look, activation checkpointing, compilation, garbage collection and warnings are off, for this
  thread as far as possible (`shared_changes`).
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import nn

from unvanish.probes.held_signals import HeldSignals
from unvanish.probes.kept_tensors import Undo
from unvanish.probes.process import keep_process
from unvanish.probes.reach import Reach
from unvanish.probes.shared_changes import ALL, SharedChange
from unvanish.probes.yolo import is_yolo

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
PLAIN = frozenset((bool, int, float, str, type(None)))  # what most attributes are, and hold no tensor
NAMES = ("", "batch", "loss")  # of the roots, in this order
TRIES = 4  # of one step of putting back, each of which an interrupt may break off


def unwrap(model: Any) -> nn.Module:
    """The module inside DataParallel, DDP, `torch.compile`, Fabric, `YOLO`, from outside in."""
    while True:
        if isinstance(model, WRAPPERS):
            model = model.module
        elif type(model).__name__ == "OptimizedModule":  # importing torch's compiler to ask would be heavy
            model = dict(model.named_children())["_orig_mod"]
        elif type(model).__name__ == "_FabricModule":
            model = model.module
        elif is_yolo(model):
            model = model.model
        else:
            return cast(nn.Module, model)


class Kept:
    """Everything that some roots reach, and the process, as they were; a context that puts them back."""

    def __init__(self, roots: tuple[Any, ...], most: float, off: tuple[SharedChange, ...]) -> None:
        self.roots, self.off = roots, off
        self.signals = HeldSignals()
        self.reach = Reach(most)
        self.process: list[tuple[Undo, Any]] = [(step, None) for step in keep_process()]
        self.steps: list[tuple[Undo, Any]] = []
        self.guards: list[Any] = []  # of inference mode, if it was on
        self.stopped: list[BaseException] = []  # what interrupted the putting back
        self.failed: dict[str, None] = {}
        self.entered = self.done = self.over = False

    @property
    def lost(self) -> tuple[str, ...]:
        """What could not be put back: where, and what it is."""
        return tuple(self.failed)

    def __enter__(self) -> Self:
        if not self.entered:
            self.entered = True
            try:
                self._start()
            except BaseException:
                self.put_back()
                raise
        return self

    def _start(self) -> None:
        if self.off:
            if torch.is_inference_mode_enabled():
                self.guards.append(torch._C._InferenceMode(False))
                self.guards[0].__enter__()
            torch._C._set_grad_enabled(True)
            for change in self.off:
                change.enter(id(self))
        with torch.no_grad(), torch._C.DisableTorchFunction():
            for root, name in zip(self.roots, (*NAMES, *[""] * len(self.roots)), strict=False):
                self.reach.follow(root, name)
            self.steps = self.reach.list_steps()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.put_back()
        if error is not None and self.failed and not getattr(error, "__notes__", None):
            error.add_note(f"what could not be put back: {'; '.join(self.failed)}")

    def rewind(self) -> None:
        """Put everything back in the midst of the context, which examines no longer but still puts back."""
        try:
            self.signals.hold()
            self._run()
            self._stop_looking()
        finally:
            self.signals.release()

    def forget(self) -> None:
        """Let what the roots reach be as it has become; the process is still put back."""
        self.steps.clear()

    def put_back(self) -> None:
        """Put everything back; may be called again. What interrupted it is raised when it is done."""
        if not self.over:
            try:
                self.signals.hold()
                if not self.done:
                    self._run()
                    self.done = True
                self.process.clear()
                self.steps.clear()  # before the collector is on again, which would look through all of it
                self.reach = Reach(0)
                self._stop_looking()
                self.over = True
            finally:
                self.signals.release()
        self.signals.release()
        if self.stopped:
            raise self.stopped.pop()

    def _run(self) -> None:
        with torch._C.DisableTorchFunction():
            for step, value in [*self.process, *self.steps]:
                try:
                    said = step()
                except BaseException as error:
                    said = self._try_again(step, error)
                if said:
                    self.failed[f"{self.reach.name(value) or 'the model'} ({said})"] = None

    def _try_again(self, step: Undo, error: BaseException) -> str | None:
        """Take a step that was broken off; says what it could not put back."""
        for _ in range(TRIES):
            if not isinstance(error, Exception):
                self.stopped[:] = [error]
            try:
                return step()
            except BaseException as again:
                error = again
        return f"{type(error).__name__}: {error}".partition("\n")[0]

    def _stop_looking(self) -> None:
        for guard in self.guards:
            guard.__exit__(None, None, None)
        self.guards.clear()
        for change in self.off:
            change.leave(id(self))


def intact(*roots: Any, most: float = float("inf"), off: tuple[SharedChange, ...] = ALL) -> Kept:
    """Everything that roots reach (a model, a batch, a loss) and the process, as they are now.

    A context to be entered twice, `with intact(model) as kept, kept:`. `most`: bytes of a parameter or buffer
    whose numbers are copied, at most. `off`: what is off meanwhile; gradients are on, unless it is empty.
    """
    return Kept(roots, most, off)
