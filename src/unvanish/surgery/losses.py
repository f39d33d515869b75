"""Loss functions around the user's own, and the removal of an output non-linearity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unvanish.surgery.grafts import first
from unvanish.surgery.names import split_label
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery

OUTPUT_FUNCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {  # of the logits and the axis of the classes
    "identity": lambda z, axis: z,
    "sigmoid": lambda z, axis: torch.sigmoid(z),
    "log_softmax": torch.log_softmax,
}


class OutputFunction(nn.Module):
    """An output function by its name in OUTPUT_FUNCTIONS; `axis`: that of the classes."""

    def __init__(self, name: str, axis: int = 1) -> None:
        super().__init__()
        self.name, self.axis = name, axis

    def forward(self, z: Tensor) -> Tensor:
        return OUTPUT_FUNCTIONS[self.name](z, self.axis if z.ndim > 1 else 0)


class InPlaceOf:
    """Runs another output function in place of one call of a function."""

    def __init__(self, name: str, index: int = 0) -> None:
        self.name, self.index = name, index

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if index != self.index:
            return func(*args, **kwargs)
        axis = args[1] if len(args) > 1 and isinstance(args[1], int) else kwargs.get("dim", 1)
        return OUTPUT_FUNCTIONS[self.name](args[0] if args else kwargs["input"], axis)


class Rewired:
    """The user's loss, with some of the calls it makes replaced."""

    def __init__(self, loss: Any, handlers: dict[str, Any]) -> None:
        self.loss, self.handlers = loss, handlers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with Calls(self.handlers):
            return self.loss(*args, **kwargs)


class WithLogits:
    """The loss on logits, in place of a squared error on probabilities; `kind` is the removed function.

    sigmoid: binary cross-entropy; tanh: the same for targets in [-1, 1]; softmax: cross-entropy with
    probabilities.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, output: Any, y: Tensor) -> Tensor:
        z = first(output)
        assert z is not None
        y = y.to(z.dtype)
        if self.kind == "softmax":
            return functional.cross_entropy(z.flatten(0, -2), y.flatten(0, -2))
        if self.kind == "tanh":  # (1 + tanh(z)) / 2 = sigmoid(2 z)
            return functional.binary_cross_entropy_with_logits(2 * z, (1 + y) / 2)
        return functional.binary_cross_entropy_with_logits(z, y)


class ZLoss:
    """The user's loss plus weight * mean(logsumexp(logits)^2)."""

    def __init__(self, loss: Any, weight: float) -> None:
        self.loss, self.weight = loss, weight

    def __call__(self, output: Any, *rest: Any) -> Tensor:
        z = first(output)
        assert z is not None
        own: Tensor = self.loss(output, *rest)
        return own + self.weight * torch.logsumexp(z, -1).square().mean()


def remove_output_function(surgery: Surgery, target: str, kind: str) -> None:
    """Make the output function at a site the identity: a module, a call in a forward or in the loss."""
    swap_output_function(surgery, target, kind, "identity")


def swap_output_function(surgery: Surgery, target: str, kind: str, to: str) -> None:
    """Put one of OUTPUT_FUNCTIONS in place of the `kind` at a site: a module, a call in a forward or in the
    loss.
    """
    path, index = split_label(target)
    what = "removed" if to == "identity" else f"becomes {to}"
    if path and surgery.has(path) and _is_function(surgery.module(path)):
        old = surgery.module(path)
        dim: Any = getattr(old, "dim", 1)
        new = nn.Identity() if to == "identity" else OutputFunction(to, 1 if dim is None else dim)
        surgery.swap(path, new, f"{type(old).__name__} {what}")
        return
    parent, _, name = path.rpartition(".")
    if name == kind and surgery.has(parent) and calls_itself(surgery, parent, kind):
        surgery.graft(parent, Rewire({kind: InPlaceOf(to, index)}, own=True), f"its {kind} {what}")
        return
    if surgery.loss is None or not (name == kind or path in ("", "loss")):
        raise SurgeryError(f"no {kind} was found at {target or '(model)'}, nor a loss function that calls it")
    surgery.replace_loss(Rewired(surgery.loss, {kind: InPlaceOf(to, index)}), f"its {kind} {what}")


def _is_function(module: nn.Module) -> bool:
    """Whether a module is one of torch's functions without parameters."""
    own = type(module).__module__ == "torch.nn.modules.activation"
    return own and next(module.parameters(), None) is None


class Heard:
    """Counts the calls of a function, which runs as usual."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        self.count += 1
        return func(*args, **kwargs)


def calls_itself(surgery: Surgery, path: str, kind: str) -> bool:
    """Whether a module's forward calls a function itself; True if there is no batch to test."""
    if surgery.batch is None:
        return True
    from unvanish.probes import calls
    from unvanish.probes.intact import intact

    heard = Heard()
    call = calls.prepare(surgery.batch, surgery.loss, gradients=False)
    with intact(surgery.model, surgery.batch) as kept, kept, torch.no_grad():
        around = Rewire({kind: heard}, own=True)
        module = surgery.module(path)
        handles = [
            module.register_forward_pre_hook(
                lambda _, args, kwargs: around.before(args, kwargs), with_kwargs=True
            ),
            module.register_forward_hook(lambda *_: around.leave(), always_call=True),
        ]
        try:
            call.run(surgery.model)
        finally:
            for handle in handles:
                handle.remove()
    return heard.count > 0
