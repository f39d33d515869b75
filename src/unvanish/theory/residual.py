"""Residual sums: the growth of a stream, block by block, by the position of the normalisation.

Notable: a branch that ends in random weights adds its power and its squared gradient to the stream's (Hayou
et al. 2021; Yang and Schoenholz 2017), so two numbers per block describe the stream.

- "none": both grow by 1 + b per block, exponentially, unless b is about 1/blocks.
- "pre": x + f(norm(x)): the branch reads length 1 for any stream; the power grows linearly, by b per block,
  and the gradient by 1 + b/q.
- "post": norm(x + f(x)): each block divides by sqrt(1 + b), so the skip path fades by 2^-1/2 per block for b
  = 1 (Xiong et al. 2020); the total gradient is kept, but less and less of it passes the identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """After one block: the stream's power, the block's gain of ||d||^2, the share of the skips."""

    power: float
    gain: float
    identity: float


def stream(
    blocks: int, *, norm: str = "none", branch: float = 1.0, backward: float | None = None, alpha: float = 1.0
) -> Iterator[Block]:
    """Yield the blocks in order: x -> alpha x + f(x), f of power gain `branch`, gradient gain `backward`.

    `norm`: "none", "pre" or "post". `identity` is the share of ||d||^2 from the block's output to the input
    that never passed a branch. ValueError if the norm is unknown.
    """
    if norm not in ("none", "pre", "post"):
        raise ValueError(f"norm is {norm!r}; use none, pre or post")
    back = branch if backward is None else backward
    power = identity = 1.0
    for _ in range(blocks):
        if norm == "pre":
            gain, share = alpha**2 + back / power, alpha**2
            power = alpha**2 * power + branch
        else:
            scale = alpha**2 + branch if norm == "post" else 1.0
            gain, share = (alpha**2 + back) / scale, alpha**2 / scale
            power = power * (alpha**2 + branch) / scale
        identity *= share / gain
        yield Block(power, gain, identity)
