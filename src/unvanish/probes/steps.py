"""A training step in place of a forward and a loss: the user's own function, or the model's `training_step`.

Notable:
- The step runs as it is. What it gives the model is seen at the model's own call: there float inputs are
  replaced by leaves that require a gradient, and the loss begins when the model has returned. A step that
  calls parts of its model instead is one piece, like a model that returns its own loss.
- A tensor of the batch that the model is not given is a target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probes.calls import Call, Runner, map_tensors, own_loss
from unvanish.probes.errors import CheckError
from unvanish.probes.fields import tensors_of
from unvanish.probes.takes import read_signature

LIGHTNING = ("lightning", "pytorch_lightning")  # whose own step only says that it must be written
LOGS = ("log", "log_dict")  # of Lightning's modules, which want a trainer


@dataclass(frozen=True)
class Stepped:
    """What a step gives: what the model returned within it (a list, if it was called again), and the loss."""

    output: Any
    loss: Any


@dataclass(frozen=True)
class TrainingStep(Runner):
    """`function(model, batch)` returns the loss; `name`: what it is called in messages."""

    function: Callable[[Any, Any], Any]
    name: str = "step"

    def prepare(self, batch: Any, gradients: bool) -> Call:
        """The call of a step: nothing is known of it before it runs."""
        given = tuple(tensors_of(batch))
        size = next((int(t.shape[0]) for t in given if t.ndim and not t.is_nested and t.shape[0]), None)
        return StepCall(
            (batch,), {}, _read_loss, "loss", given=given, batch_size=size, gradients=gradients, step=self
        )


@dataclass(frozen=True)
class StepCall(Call):
    """A step's call; `inputs` and `originals` are filled in when the model is called."""

    gradients: bool = True
    step: TrainingStep = field(default_factory=lambda: TrainingStep(lambda model, batch: None))

    def run(self, model: Any, watched: Any = None) -> Any:
        """The step's outcome. `watched`: it is told where the loss begins, and what the targets are."""
        if watched is None:
            return Stepped(None, self._read(self.step.function(model, *self.args)))
        border = Border(self, watched)
        with ExitStack() as stack:
            handles = [
                model.register_forward_pre_hook(border.enter, with_kwargs=True),
                model.register_forward_hook(border.leave),
            ]
            for handle in handles:
                stack.callback(handle.remove)
            before = _read_versions(model)
            value = self.step.function(model, *self.args)
        if _read_versions(model) != before:
            raise CheckError(
                f"{self.step.name} runs a backward of its own; return the loss before it, and leave out "
                "the backward and the optimizer's step"
            )
        made = border.outputs
        return Stepped(made[0] if len(made) == 1 else made, self._read(value))

    def _read(self, value: Any) -> Any:
        """The loss of what a step returned: a tensor, or what holds one as "loss"."""
        found = value if isinstance(value, Tensor) else own_loss(value)
        if found is None:
            kind = "None" if value is None else f"a {type(value).__name__}"
            raise CheckError(
                f"{self.step.name} returned {kind}; return the loss, a scalar tensor, or a dict with 'loss'"
            )
        return found


@dataclass
class Border:
    """Where the model begins and ends within a step."""

    call: StepCall
    watched: Any  # the forward that is watched
    outputs: list[Any] = field(default_factory=list)
    depth: int = 0

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The model is called: note what it is given, and let float inputs require a gradient."""
        self.depth += 1
        if self.depth > 1:
            return None
        self.watched.in_loss = False
        again = f" (call {len(self.outputs) + 1})" if self.outputs else ""
        with torch._C.DisableTorchFunction():
            return map_tensors(args, kwargs, lambda name, value: self._take(name + again, value))

    def _take(self, name: str, value: Tensor) -> Tensor:
        self.call.originals[name] = value  # type: ignore[index]
        real = value.is_floating_point() and value.layout is torch.strided and not value.is_nested
        if not self.call.gradients or not real or value.requires_grad or value.is_inference():
            return value
        leaf = value.detach().clone().requires_grad_()
        self.call.inputs[name] = leaf  # type: ignore[index]
        return leaf

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """The model has returned: what follows is the loss, and what it was not given are targets."""
        self.depth -= 1
        if self.depth:
            return
        self.outputs.append(output)
        given = {id(t) for t in self.call.originals.values()}
        self.watched.start_loss()
        self.watched.loss_calls.start(tuple(t for t in self.call.given if id(t) not in given))


def _read_versions(model: nn.Module) -> list[tuple[int, int]]:
    """Which gradients the parameters hold, and how often they were written to."""
    return [(id(g), -1 if g is None else g._version) for g in (p.grad for p in model.parameters())]


def _read_loss(outcome: Any) -> Any:
    return outcome.loss


def read_step(function: Any) -> TrainingStep:
    """The step that a caller gives; CheckError if it cannot be called."""
    if isinstance(function, TrainingStep):
        return function
    if not callable(function):
        raise CheckError(
            f"step is a {type(function).__name__} and cannot be called; give a function of (model, batch) "
            "that returns the loss"
        )
    return TrainingStep(function)


def find_own_step(model: nn.Module) -> TrainingStep | None:
    """The step that a model brings along, `training_step(batch, batch_idx)`; None if it has none.

    CheckError if it optimises by itself.
    """
    own = getattr(type(model), "training_step", None)
    if not callable(own) or getattr(own, "__module__", "").partition(".")[0] in LIGHTNING:
        return None
    if getattr(model, "automatic_optimization", True) is False:
        raise CheckError(
            "training_step optimises by itself (automatic_optimization is False); give one loss by "
            "step=lambda model, batch: loss"
        )
    return TrainingStep(run_training_step, "training_step")


def run_training_step(model: Any, batch: Any) -> Any:
    """What a model's own training step returns for its first batch; what it logs goes nowhere."""
    takes = read_signature(model.training_step)
    count = next((n for n in (2, 1, 3) if takes.fits(n)), 2)
    before: Mapping[str, Any] = {name: vars(model)[name] for name in LOGS if name in vars(model)}
    logging = [name for name in LOGS if callable(getattr(model, name, None))]
    try:
        for name in logging:
            vars(model)[name] = _ignore
        return model.training_step(batch, *[0] * (count - 1))
    finally:
        for name in logging:
            vars(model).pop(name, None)
        vars(model).update(before)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """In place of a log."""
