"""Gradients that somebody wrote: each `torch.autograd.Function` of a forward against central differences.

Notable:
- A function is run again in float64 on copies of what it was given. Single numbers of its inputs are moved,
  by two steps; where these disagree the function has a kink or a jump there, and nothing is said.
- A function whose output does not move while its gradient does is a straight-through one: it is innocent with
  all its inputs, which quantisers define together. One that returns its input changes the gradient on
  purpose.
- The gradient that arrives is turned, and what leaves must turn with it: so it is for straight-through ones,
  too.
- A function that does not run in float64, or draws numbers, is not judged.
- A function whose `apply` was stored before the examination is known by its node in the graph alone; the
  model runs once more to see what it is given.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import _is_setup_context_defined

from unvanish.core.facts import WrongGradientFacts
from unvanish.core.omissions import Omissions
from unvanish.probes.calls import tensors_in
from unvanish.probes.shared_changes import FUNCTIONS, ask

LARGE = 1 << 18  # numbers in a call that is tried again, at most
CALLS = 8  # functions
PLACES = 8  # numbers of an input that are moved
STEP = 1e-5  # relative to the size of the input; a second one is four times as long
AGREE = 1e-3  # relative, of the two differences: else a kink lies between
WRONG = 1e-2  # relative, of the gradient to the difference: truncation in float64 gives 1e-6
NOTHING = 1e-9  # of the output's size: the output does not move


@dataclass(frozen=True)
class CustomCall:
    """A function, and copies of what it was given."""

    function: Any
    path: str
    args: tuple[Any, ...]


@contextmanager
def keep_calls(path: Any, omissions: Omissions) -> Iterator[list[CustomCall]]:
    """Keep the first call of each function that is not torch's own; `path()`: the module that runs."""
    kept: list[CustomCall] = []
    seen: set[Any] = set()

    def keep(cls: Any, args: tuple[Any, ...], named: Any) -> None:
        small = sum(t.numel() for t in tensors_in(args, 1)) <= LARGE
        fresh = cls not in seen and len(kept) < CALLS and not named and small
        if fresh and not cls.__module__.startswith("torch."):
            seen.add(cls)
            copies = omissions.attempt(
                "a function's arguments", path(), lambda: _copy_all(args), lambda: None
            )
            kept.extend([] if copies is None else [CustomCall(cls, path(), copies)])

    with ask(FUNCTIONS, keep):
        yield kept


def find_stored(nodes: Iterable[Any], kept: Sequence[CustomCall]) -> list[Any]:
    """The functions among the nodes of a graph that `keep_calls` did not see, none of them torch's own."""
    made = (type(node) for node in nodes if isinstance(node, torch.autograd.function.BackwardCFunction))
    classes = dict.fromkeys(kind._forward_cls for kind in made)  # type: ignore[attr-defined]
    known = {call.function for call in kept}
    return [c for c in classes if c not in known and not c.__module__.startswith("torch.")][:CALLS]


def keep_stored(functions: Sequence[Any], run: Callable[[], Any]) -> list[CustomCall]:
    """The first call of each function while `run` runs, seen where torch asks the class for its forward."""
    kept: dict[Any, CustomCall] = {}
    me = threading.get_ident()

    def see(cls: Any, own: Any, *args: Any) -> Any:
        given = args if _is_setup_context_defined(cls.setup_context) else args[1:]  # type: ignore[no-untyped-call]
        small = sum(t.numel() for t in tensors_in(given, 1)) <= LARGE
        if threading.get_ident() == me and cls not in kept and small:
            kept[cls] = CustomCall(cls, "", _copy_all(given) or ())
        return own(*args)

    before = {cls: vars(cls).get("forward") for cls in functions}
    try:
        for cls in functions:
            cls.forward = staticmethod(partial(see, cls, cls.forward))
        with torch.enable_grad():
            run()
    except Exception:  # the model does not run twice: what was seen is judged
        return list(kept.values())
    finally:
        for cls, own in before.items():
            if own is not None:
                cls.forward = own
            elif "forward" in vars(cls):
                del cls.forward
    return list(kept.values())


def _copy_all(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return tuple(_copy(a) if isinstance(a, Tensor) else a for a in args)


def _copy(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return x.detach().clone().requires_grad_(x.requires_grad)


def find_wrong_gradients(kept: Sequence[CustomCall]) -> list[WrongGradientFacts]:
    """The facts of every input whose gradient disagrees with the differences."""
    found: list[WrongGradientFacts] = []
    for call in kept:
        try:
            found += _judge(call)
        except Exception:  # it does not run in float64, or not twice: nothing is known of it
            continue
    return found


def _judge(call: CustomCall) -> list[WrongGradientFacts]:
    args = [_widen(a) for a in call.args]
    wanted = [k for k, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        outputs = _outputs(call, args)
        weights = [torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in outputs]
        total = _total(outputs, weights)
        leaves = [args[k] for k in wanted]
        gradients = torch.autograd.grad(total, leaves, allow_unused=True)
        turned = torch.autograd.grad(
            -_total(_outputs(call, args), weights), leaves, allow_unused=True, materialize_grads=True
        )
    if abs(float(_total(_outputs(call, args), weights)) - float(total)) > 0:  # it draws numbers
        return []
    same = [k for k in wanted if any(o.shape == args[k].shape and torch.equal(o, args[k]) for o in outputs)]
    found: list[WrongGradientFacts] = []
    single = len(outputs) == 1 and outputs[0].numel() == 1
    for k, gradient, other in zip(wanted, gradients, turned, strict=True):
        if not same and gradient is not None and bool(gradient.any()) and torch.equal(gradient, other):
            found.append(_tell_deaf(call, k, single))
            continue
        pairs = list(_compare(call, args, k, gradient, weights, generator))
        if pairs and all(d == 0 for _, d in pairs) and any(g != 0 for g, _ in pairs):
            return []  # straight through
        moved = [(g, d) for g, d in pairs if d != 0]
        if facts := _describe(call, k, moved, k in same):
            found.append(facts)
    return found


def _tell_deaf(call: CustomCall, k: int, single: bool) -> WrongGradientFacts:
    """A backward that gives the same whatever arrives; a loss may do so where it stands last."""
    facts: WrongGradientFacts = {
        "function": call.function.__name__,
        "path": call.path,
        "argument": k,
        "factor": math.nan,
        "identity": single,
        "deaf": True,
    }
    return facts


def _widen(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return value.detach().cpu().double().requires_grad_(value.requires_grad)


def _outputs(call: CustomCall, args: Sequence[Any]) -> list[Tensor]:
    made = call.function.apply(*[a.clone() if isinstance(a, Tensor) else a for a in args])
    return [t for t in tensors_in(made, 1) if t.is_floating_point()]


def _total(outputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    return torch.stack([(o.double() * w).sum() for o, w in zip(outputs, weights, strict=True)]).sum()


def _compare(
    call: CustomCall,
    args: Sequence[Any],
    k: int,
    gradient: Tensor | None,
    weights: Sequence[Tensor],
    generator: torch.Generator,
) -> Iterator[tuple[float, float]]:
    """The gradient and the difference at some numbers of one input; without kinks."""
    x = args[k].detach()
    size = float(x.square().mean().sqrt()) or 1.0

    @torch.no_grad()
    def value(place: int, step: float) -> float:
        moved = x.clone()
        moved.reshape(-1)[place] += step
        return float(_total(_outputs(call, [*args[:k], moved.requires_grad_(), *args[k + 1 :]]), weights))

    scale = max(abs(value(0, 0.0)), 1e-300)
    for place in torch.randperm(x.numel(), generator=generator)[:PLACES].tolist():
        step = STEP * size
        short = (value(place, step) - value(place, -step)) / (2 * step)
        long = (value(place, 4 * step) - value(place, -4 * step)) / (8 * step)
        if abs(short - long) > AGREE * max(abs(short), abs(long)) and abs(long) * size > NOTHING * scale:
            continue
        still = abs(short) * size <= NOTHING * scale
        yield 0.0 if gradient is None else float(gradient.reshape(-1)[place]), 0.0 if still else short


def _describe(
    call: CustomCall, k: int, moved: Sequence[tuple[float, float]], same: bool
) -> WrongGradientFacts | None:
    if not moved or all(abs(g - d) <= WRONG * max(abs(g), abs(d)) for g, d in moved):
        return None
    ratios = sorted(g / d for g, d in moved)
    middle = ratios[len(ratios) // 2]
    steady = ratios[-1] - ratios[0] <= WRONG * abs(middle) or not any(g for g, _ in moved)
    return {
        "function": call.function.__name__,
        "path": call.path,
        "argument": k,
        "factor": middle if steady else math.nan,
        "identity": same,
        "deaf": False,
    }
