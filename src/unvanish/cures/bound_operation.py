"""Keeps an operation away from its pole: sqrt, log, division, exp, acos, a fully masked softmax.

What it does

In the module or the loss that produces the first NaN or infinity, the operation's input is moved into
its domain: sqrt and log see at least `epsilon`, a divisor is at least `epsilon` away from zero, above
the root of the format's largest number exp grows linearly, acos and asin stay `epsilon` inside, the
softmax of a fully masked row is uniform, std is sqrt(var + epsilon).

Safety

It changes the function only at points where the function or its slope was not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.losses import Rewired, calls_itself
from unvanish.surgery.names import split_label
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def _positive(func: Any, x: Tensor, eps: float, args: Any, kwargs: Any) -> Any:
    return func(x.clamp_min(eps), *args, **kwargs)


def _divide(func: Any, x: Any, eps: float, args: Any, kwargs: Any) -> Any:
    y, *rest = args
    if isinstance(y, Tensor) and y.is_floating_point():
        y = torch.where(y.abs() < eps, torch.where(y < 0, -eps, eps).to(y.dtype), y)
    return func(x, y, *rest, **kwargs)


def _exponential(func: Any, x: Tensor, eps: float, args: Any, kwargs: Any) -> Any:
    edge = math.log(torch.finfo(x.dtype).max) / 2
    return func(x.clamp_max(edge) + (x - edge).clamp_min(0).log1p(), *args, **kwargs)


def _angle(func: Any, x: Tensor, eps: float, args: Any, kwargs: Any) -> Any:
    return func(x.clamp(-1 + eps, 1 - eps), *args, **kwargs)


def _share(func: Any, x: Tensor, eps: float, args: Any, kwargs: Any) -> Any:
    dim = kwargs.get("dim", args[0] if args else -1)
    empty = torch.isneginf(x).all(dim, keepdim=True)
    return func(torch.where(empty, torch.zeros_like(x), x), *args, **kwargs)


def _power(func: Any, x: Tensor, eps: float, args: Any, kwargs: Any) -> Any:
    exponent = args[0] if args else kwargs.get("exponent", 1)
    below = isinstance(exponent, (int, float)) and exponent < 1
    return func(x.clamp_min(eps) if below else x, *args, **kwargs)


def _spread(func: Any, x: Tensor, eps: float, args: Any, kwargs: Any) -> Any:
    return (x.var(*args, **kwargs) + eps).sqrt()


def _length(func: Any, x: Tensor, eps: float, args: Any, kwargs: Any) -> Any:
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    keep = bool(kwargs.get("keepdim", False))
    squares = x.square()
    return (squares.sum() if dim is None else squares.sum(dim, keepdim=keep)).add(eps).sqrt()


BOUNDED: dict[str, Callable[..., Any]] = {
    "sqrt": _positive, "rsqrt": _positive, "log": _positive, "log2": _positive, "log10": _positive,
    "log1p": _positive, "div": _divide, "reciprocal": _positive, "exp": _exponential, "acos": _angle,
    "asin": _angle, "atanh": _angle, "softmax": _share, "pow": _power, "std": _spread, "norm": _length,
}  # fmt: skip


class Bounded:
    """One function, its input moved into its domain."""

    def __init__(self, kind: str, epsilon: float) -> None:
        self.kind, self.epsilon = kind, epsilon

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        x, *rest = args
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return func(*args, **kwargs)
        epsilon = max(
            self.epsilon, 10 * torch.finfo(x.dtype).eps if self.kind in ("acos", "asin", "atanh") else 0.0
        )
        return BOUNDED[self.kind](func, x, epsilon, rest, kwargs)


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The operation of the finding, if it can be bounded, or the softmax that a mask leads to."""
    for target in remedy.targets:
        path, _ = split_label(target)
        parent, _, kind = path.rpartition(".")
        if kind == "masked_fill":  # a mask of -inf is right; the softmax of an empty row is not
            path = f"{parent}.softmax".lstrip(".")
        if path.rpartition(".")[2] in BOUNDED:
            yield replace(remedy, targets=(path,), parameters={}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...], *, epsilon: float = 1e-6) -> None:
    """Bound the functions at `targets`, such as "module.sqrt"."""
    for target in targets:
        parent, _, kind = target.rpartition(".")
        if kind not in BOUNDED:
            raise SurgeryError(f"bound-operation: {target} is none of {', '.join(BOUNDED)}")
        handlers = {name: Bounded(name, epsilon) for name in (kind, *(("exp",) if kind == "div" else ()))}
        if surgery.loss is not None and surgery.has(parent) and not calls_itself(surgery, parent, kind):
            surgery.replace_loss(Rewired(surgery.loss, handlers), f"its {kind} bounded")
        else:
            surgery.graft(parent, Rewire(handlers, own=True), f"{kind} bounded")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    named = remedy.targets[0].rpartition(".")[2] if remedy.targets else ""
    kind = named if named in BOUNDED else "sqrt"
    eps = remedy.parameters.get("epsilon", 1e-6)
    return [
        {
            "div": f"# in place of a / b: a / b.clamp_min({eps:g})",
            "exp": "h = torch.exp(x.clamp_max(44))  # in place of torch.exp(x)",
            "softmax": "# mask only rows that keep at least one entry",
            "pow": f"# in place of x ** p, for p below 1: x.clamp_min({eps:g}) ** p",
        }.get(kind, f"h = torch.{kind}(x.clamp_min({eps:g}))  # in place of torch.{kind}(x)")
    ]


class Root(nn.Module):
    """A square root whose value is guarded, and its slope is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.layer(x))
        out: Tensor = self.head(torch.where(h > 0, torch.sqrt(h), torch.zeros_like(h)))
        return out


def case() -> tuple[Case, Remedy]:
    """A guarded square root."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(Root(), batch, nn.CrossEntropyLoss()), Remedy("bound-operation", ("sqrt",), "a finite slope")
