"""The loss of a check: the user's own, or one of torch.nn.functional by its name.

Notable:
- If the batch has no target, a functional loss gets a random one that fits, the same on every call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from unvanish.cli import reference
from unvanish.cli.errors import CallError
from unvanish.core.registry import suggest

LOSSES = ("cross_entropy", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div")
CLASSES = ("cross_entropy", "nll_loss")
CHANCES = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
NUMBERS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


def load(text: str, target: bool, seed: int) -> tuple[Any, tuple[str, ...]]:
    """The loss that `--loss` names, and the assumptions; a batch without a target gets a random one."""
    if ":" in text or text.endswith(".py"):
        return _own_loss(text), ()
    import torch.nn.functional as functional

    known = [n for n in dir(functional) if n.endswith("_loss") and n[0] != "_"] + list(LOSSES)
    if text not in known:
        form = "or name your own, FILE.py:callable"
        raise CallError(f"--loss {text!r} is not a loss of torch.nn.functional{suggest(text, known)}; {form}")
    function = getattr(functional, text)
    return (function, ()) if target else _with_random_target(function, text, seed)


def _own_loss(text: str) -> Callable[..., Any]:
    value = reference.load(text, "--loss")
    if inspect.isclass(value) or (callable(value) and not _takes_any(value)):
        value = reference.call(value, text, "--loss", "the loss")
    if not callable(value):
        kind = type(value).__name__
        raise CallError(f"--loss {text} gave {kind!r}; loss(output, y) or loss(output) is needed")
    return value  # type: ignore[no-any-return]


def _takes_any(function: Any) -> bool:
    try:
        return bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return True


def _with_random_target(function: Any, name: str, seed: int) -> tuple[Any, tuple[str, ...]]:
    """The loss of the output alone, against a random target that is the same on every call."""
    import torch

    if name not in (*CLASSES, *CHANCES, *NUMBERS):
        raise CallError(f"--loss {name} needs its own kind of target; give --data with (x, y)")

    def against_random(output: Any) -> Any:
        generator = torch.Generator().manual_seed(seed)
        shape = tuple(output.shape)
        if name in CLASSES:
            classes = torch.randint(shape[min(1, len(shape) - 1)], shape[:1] + shape[2:], generator=generator)
            return function(output, classes.to(output.device))
        random = torch.randn(shape, generator=generator).to(output)
        return function(output, (random > 0).to(output) if name in CHANCES else random)

    kind = "zeros and ones" if name in CHANCES else "standard normal numbers"
    kind = "classes" if name in CLASSES else kind
    return against_random, (f"the target of {name} is random: {kind}, seed {seed}",)
