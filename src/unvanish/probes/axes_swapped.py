"""Views that give axes another order without moving the numbers: where a transpose was meant.

Notable:
- A view keeps the numbers in their order. (tokens, features) viewed as (features, tokens), channels first as
  channels last, (tokens, heads * width) as (heads, tokens, width): each row of the result is a piece of
  several rows that have nothing to do with each other.
- Innocent is a view behind a padding or a concatenation: rows that are one number longer are moved against
  each other so, as relative positions are.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from unvanish.core.loss_facts import SwapFacts
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.lines import find_line

RESHAPES = {"view", "reshape", "unflatten"}
SKEWED = ("CatBackward0", "ConstantPadNdBackward0", "SliceBackward0", "NewZerosBackward0", "StackBackward0")
LEAST = 2  # numbers along an axis


def read_swap(operation: Operation, call: OperationCall, result: Tensor, batch: int) -> SwapFacts | None:
    """What a view of activations does to the order of a sample's axes, if it is no order of theirs."""
    x = call.args[0] if call.args else None
    if not isinstance(x, Tensor) or x.grad_fn is None or type(x.grad_fn).__name__ in SKEWED:
        return None
    before, after = _split_batch(tuple(x.shape), tuple(result.shape), batch), tuple(result.shape)
    if before[:1] != (batch,) or not is_swapped(before, after):
        return None
    if type(operation.caller.module).__module__.startswith("torch."):
        return None
    return {"path": operation.caller.path, "line": find_line(), "shapes": (before, after)}


def _split_batch(before: tuple[int, ...], after: tuple[int, ...], batch: int) -> tuple[int, ...]:
    """(samples * heads, ...) as (samples, heads, ...), where a view makes samples of it."""
    joined = before[:1] != (batch,) == after[:1] and batch > 0 and before[0] % batch == 0
    return (batch, before[0] // batch, *before[1:]) if joined else before


def is_swapped(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a view of (samples, ...) puts axes of a sample into another order.

    (p, q) as (q, p); (p, h * d) as (h, p, d) and back; maps (c, h, w) as rows of c numbers.
    """
    if len(before) < 3 or before[0] != after[0] or min(before) < LEAST:
        return False
    own, new = [*before[1:]], [*after[1:]]
    if len(own) == 2 and len(new) == 2:
        return own != new and own == new[::-1] and abs(own[0] - own[1]) > 1
    if len(own) == 2 and len(new) == 3:
        heads, tokens, width = new
        return tokens == own[0] and heads * width == own[1] and LEAST <= heads != tokens and width >= LEAST
    if len(own) == 3 and len(new) == 2:  # maps of channels first
        channels, height, wide = own
        merged = new == [height, channels * wide] and channels != height  # heads before tokens
        return merged or (new[1] == channels and channels not in (wide, height * wide))
    return len(own) == 3 and len(new) == 3 and _turns_pictures(own, new)


def _turns_pictures(own: list[int], new: list[int]) -> bool:
    """Whether pictures with their channels at one end are viewed as ones with them at the other."""
    first = new == [own[2], own[0], own[1]]  # (h, w, c) as (c, h, w)
    last = new == [own[1], own[2], own[0]]
    return (first or last) and own != new
