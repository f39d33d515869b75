"""Cross-stage blocks of detectors: part of the channels passes bottlenecks, then all are concatenated.

Notable:
- C2f and C3k2 keep the output of every inner block (as ELAN does), so each has a short path to the loss; C3
  keeps the last one.
- The inner block is a bottleneck, or a C3k if the row says so, and always in the large variants (m, l, x).

References: Wang et al. 2020 (CSPNet, arXiv 1911.11929); Wang et al. 2022 (ELAN, arXiv 2211.04800).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from unvanish.lab.models.blocks._example import IMAGE, Example
from unvanish.lab.models.blocks.conv import Conv

LARGE = ("m", "l", "x")


class CrossBottleneck(nn.Module):
    """Two convolutions, `expansion` x out channels between them, added to their input where the widths agree.

    `kernels`: of the two; `groups`: of the second. (B, width_in, H, W) to (B, out, H, W); `out`: width_in.
    """

    PUBLISHED: ClassVar[dict[str, str]] = {"first": "cv1", "second": "cv2"}

    def __init__(
        self,
        width_in: int,
        out: int | None = None,
        shortcut: bool = True,
        groups: int = 1,
        kernels: Sequence[int] = (3, 3),
        expansion: float = 0.5,
        *,
        activation: str = "silu",
        norm: str = "steady",
    ) -> None:
        super().__init__()
        wide = width_in if out is None else out
        inner = int(expansion * wide)
        self.first = Conv(width_in, inner, kernels[0], activation=activation, norm=norm)
        self.second = Conv(inner, wide, kernels[1], groups=groups, activation=activation, norm=norm)
        self.adds = shortcut and width_in == wide

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return x + y if self.adds else y


class C3(nn.Module):
    """Two paths of half the channels, one of them deep: (B, width_in, H, W) to (B, out, H, W).

    `kernels`: of the bottlenecks of the deep one; `shortcut`: whether these add their input.
    """

    PUBLISHED: ClassVar[dict[str, str]] = {"way": "cv1", "inner": "m", "past": "cv2", "join": "cv3"}

    def __init__(
        self,
        width_in: int,
        out: int,
        shortcut: bool = True,
        groups: int = 1,
        expansion: float = 0.5,
        kernels: Sequence[int] = (1, 3),
        *,
        repeats: int = 1,
        activation: str = "silu",
        norm: str = "steady",
    ) -> None:
        super().__init__()
        c = int(expansion * out)

        def inner() -> nn.Module:
            return CrossBottleneck(c, c, shortcut, groups, kernels, 1.0, activation=activation, norm=norm)

        self.way = Conv(width_in, c, 1, activation=activation, norm=norm)
        self.inner = nn.Sequential(*(inner() for _ in range(repeats)))
        self.past = Conv(width_in, c, 1, activation=activation, norm=norm)
        self.join = Conv(2 * c, out, 1, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.join(torch.cat((self.inner(self.way(x)), self.past(x)), 1))
        return y


class C3k(C3):
    """The same, its bottlenecks of 3 x 3 convolutions twice."""

    def __init__(
        self, width_in: int, out: int, repeats: int = 2, activation: str = "silu", norm: str = "steady"
    ) -> None:
        super().__init__(width_in, out, kernels=(3, 3), repeats=repeats, activation=activation, norm=norm)


class _Chained(nn.Module):
    """Blocks in a chain, all their outputs concatenated; `width`: of each, `make`: one of them."""

    PUBLISHED: ClassVar[dict[str, str]] = {"split": "cv1", "inner": "m", "join": "cv2"}

    def __init__(
        self,
        width_in: int,
        out: int,
        width: int,
        make: Callable[[], nn.Module],
        repeats: int,
        activation: str,
        norm: str,
    ) -> None:
        super().__init__()
        self.split = Conv(width_in, 2 * width, 1, activation=activation, norm=norm)
        self.inner = nn.ModuleList(make() for _ in range(repeats))
        self.join = Conv((2 + repeats) * width, out, 1, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.join(torch.cat(pieces_of(self.split(x), self.inner), 1))
        return y


class C2f(_Chained):
    """Bottlenecks in a chain, all their outputs concatenated: (B, width_in, H, W) to (B, out, H, W).

    `shortcut`: whether they add their input; `expansion`: their channels as a share of `out`.
    """

    def __init__(
        self,
        width_in: int,
        out: int,
        shortcut: bool = False,
        groups: int = 1,
        expansion: float = 0.5,
        *,
        repeats: int = 1,
        activation: str = "silu",
        norm: str = "steady",
    ) -> None:
        c = int(expansion * out)

        def inner() -> nn.Module:
            return CrossBottleneck(c, c, shortcut, groups, (3, 3), 1.0, activation=activation, norm=norm)

        super().__init__(width_in, out, c, inner, repeats, activation, norm)


class C3k2(_Chained):
    """Inner blocks in a chain, all their outputs concatenated: (B, width_in, H, W) to (B, out, H, W).

    `deep`: the inner blocks are C3k; `expansion`: their channels as a share of `out`; `variant`: the scale.
    """

    def __init__(
        self,
        width_in: int,
        out: int,
        deep: bool = False,
        expansion: float = 0.5,
        repeats: int = 1,
        variant: str = "",
        activation: str = "silu",
        norm: str = "steady",
    ) -> None:
        c, deep = int(expansion * out), deep or variant in LARGE

        def inner() -> nn.Module:
            if deep:
                return C3k(c, c, 2, activation, norm)
            return CrossBottleneck(c, activation=activation, norm=norm)

        super().__init__(width_in, out, c, inner, repeats, activation, norm)


def pieces_of(x: Tensor, chain: Iterable[nn.Module]) -> list[Tensor]:
    """Both halves of the channels, then what each block of a chain makes of the last piece."""
    pieces = list(x.chunk(2, 1))
    for block in chain:
        pieces.append(block(pieces[-1]))
    return pieces


EXAMPLES = {
    C3: Example({"out": 8, "repeats": 2}, [IMAGE], (4, 8, 8, 8)),
    C2f: Example({"out": 8, "repeats": 2}, [IMAGE], (4, 8, 8, 8)),
    CrossBottleneck: Example({}, [IMAGE], IMAGE),
    C3k: Example({"out": 8}, [IMAGE], (4, 8, 8, 8)),
    C3k2: Example({"out": 8, "repeats": 2}, [IMAGE], (4, 8, 8, 8)),
}
