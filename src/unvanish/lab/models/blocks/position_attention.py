"""Attention over all positions of a small feature map, on half of its channels.

Notable:
- Queries and keys have half the width of the values; a depthwise convolution of the values encodes positions.
- The attention has no activation; the normalisations keep the logits in range.

References: Vaswani et al. 2017 (attention); Wang et al. 2024 (partial self-attention, arXiv 2405.14458).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unvanish.lab.models.blocks._example import IMAGE, Example
from unvanish.lab.models.blocks.conv import Conv

HEAD = 64  # channels of a head, approximately


class PositionAttention(nn.Module):
    """Attention of the positions of (B, width_in, H, W) to each other, the same shape out."""

    PUBLISHED: ClassVar[dict[str, str]] = {"position": "pe", "out": "proj"}

    def __init__(self, width_in: int, norm: str = "steady") -> None:
        super().__init__()
        self.heads = max(width_in // HEAD, 1)
        self.width = width_in // self.heads  # of a head's values
        self.key_width = self.width // 2
        wide = width_in + 2 * self.heads * self.key_width
        self.qkv = Conv(width_in, wide, 1, activation="none", norm=norm)
        self.position = Conv(width_in, width_in, 3, groups=width_in, activation="none", norm=norm)
        self.out = Conv(width_in, width_in, 1, activation="none", norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, rows, columns = x.shape
        qkv = self.qkv(x).view(batch, self.heads, -1, rows * columns)  # (B, H, 2 K + D, N)
        q, k, v = qkv.split((self.key_width, self.key_width, self.width), 2)
        mixed = F.scaled_dot_product_attention(q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3))
        seen = mixed.transpose(2, 3).reshape(batch, channels, rows, columns)
        y: Tensor = self.out(seen + self.position(v.reshape(batch, channels, rows, columns)))
        return y


class PSABlock(nn.Module):
    """Attention on a skip, then a 1 x 1 feed-forward part on a skip; (B, width_in, H, W) to itself."""

    PUBLISHED: ClassVar[dict[str, str]] = {"attention": "attn", "feedforward": "ffn"}

    def __init__(self, width_in: int, activation: str = "silu", norm: str = "steady") -> None:
        super().__init__()
        self.attention = PositionAttention(width_in, norm)
        self.feedforward = nn.Sequential(
            Conv(width_in, 2 * width_in, 1, activation=activation, norm=norm),
            Conv(2 * width_in, width_in, 1, activation="none", norm=norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        y: Tensor = x + self.feedforward(x)
        return y


class C2PSA(nn.Module):
    """Half of the channels through PSABlocks, half around them: (B, width_in, H, W) to (B, out, H, W)."""

    PUBLISHED: ClassVar[dict[str, str]] = {"split": "cv1", "inner": "m", "join": "cv2"}

    def __init__(
        self, width_in: int, out: int, repeats: int = 1, activation: str = "silu", norm: str = "steady"
    ) -> None:
        super().__init__()
        half = out // 2
        self.split = Conv(width_in, 2 * half, 1, activation=activation, norm=norm)
        self.inner = nn.Sequential(*(PSABlock(half, activation, norm) for _ in range(repeats)))
        self.join = Conv(2 * half, out, 1, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        past, way = self.split(x).chunk(2, 1)
        y: Tensor = self.join(torch.cat((past, self.inner(way)), 1))
        return y


EXAMPLES = {
    PositionAttention: Example({}, [IMAGE], IMAGE),
    PSABlock: Example({}, [IMAGE], IMAGE),
    C2PSA: Example({"out": 6, "repeats": 2}, [IMAGE], IMAGE),
}
