"""Augmentation of scenes, images with boxes: mirroring and shifts of colour.

Notable: boxes and masks are mirrored with their image. A batch is x, uint8 (B, 3, H, W), and y, rows (M, 6):
image, class, x, y, w, h in shares, or the pair of these and of their masks (M, S, S).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unvanish.lab.data.boxes import shares
from unvanish.lab.data.part import Batch

STRIDE = 32  # pixels that divide a side
GREY = (0.299, 0.587, 0.114)  # of red, green, blue in brightness


@dataclass(frozen=True)
class Scenes:
    """From uint8 scenes to floats from 0 to 1, half of them mirrored, with hue, saturation and value shifted.

    `hue`, `saturation`, `value`: the largest shifts, of the hue in turns, of the others as a share;
    `upside`: the share of scenes that are turned upside down; `spread`: by which share the sides of a batch
    differ from the set's.
    """

    flip: float = 0.5
    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4
    upside: float = 0.0
    spread: float = 0.0

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        x, y = batch
        mirrored = torch.rand(len(x), generator=generator) < self.flip
        x, y = mirrored_scenes(x, y, mirrored)
        if self.upside:
            fallen = torch.rand(len(x), generator=generator) < self.upside
            x, y = mirrored_scenes(x, y, fallen, upside=True)
        x, y = shares((x, y), generator)
        draws = 2 * torch.rand(3, len(x), generator=generator) - 1
        x = shift_colours(x, draws[0] * self.hue, 1 + draws[1] * self.saturation, 1 + draws[2] * self.value)
        return (rescale(x, self.spread, generator) if self.spread else x), y


def mirrored_scenes(x: Tensor, y: Any, which: Tensor, upside: bool = False) -> Batch:
    """Mirror the scenes selected by `which` (B,), with their rows and, if given, masks: left to right, or
    top to bottom if `upside`.
    """
    axis, column = (-2, 3) if upside else (-1, 2)
    x = torch.where(which.view(-1, 1, 1, 1), x.flip(axis), x)
    rows = y[0] if isinstance(y, tuple) else y
    turned, moved = which[rows[:, 0].long()], rows.clone()
    moved[:, column] = torch.where(turned, 1 - rows[:, column], rows[:, column])
    if not isinstance(y, tuple):
        return x, moved
    return x, (moved, torch.where(turned.view(-1, 1, 1), y[1].flip(axis), y[1]))


def rescale(x: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """Images (B, 3, H, W) at sides that differ by up to a share, multiples of 32."""
    factor = 1 + spread * (2 * float(torch.rand(1, generator=generator)) - 1)
    high, wide = (max(1, round(side * factor / STRIDE)) * STRIDE for side in x.shape[-2:])
    if (high, wide) == tuple(x.shape[-2:]):
        return x
    return interpolate(x, (high, wide), mode="bilinear", antialias=True, align_corners=False)


def shift_colours(x: Tensor, hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Rotate the hue of images (B, 3, H, W) from 0 to 1, multiply saturation and value; all (B,).

    The hue is a rotation about the grey axis that keeps brightness, the saturation the distance from grey:
    one matrix per image.
    """
    luma = torch.tensor(GREY, dtype=x.dtype)
    turn = _turns(hue.to(x))
    grey = luma.expand(3, 3)
    spread = saturation.to(x).view(-1, 1, 1)
    matrix = value.to(x).view(-1, 1, 1) * (grey + spread * (turn - grey))
    flat = matrix @ x.flatten(2)
    return flat.view_as(x).clamp_(0, 1)


def _turns(hue: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that rotate colours about the grey axis by `hue` turns and keep their brightness."""
    angle = 2 * torch.pi * hue
    cosine, sine = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    axis = torch.full((3, 3), 1 / 3, dtype=hue.dtype)
    cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=hue.dtype) / 3**0.5
    turn = cosine * torch.eye(3, dtype=hue.dtype) + (1 - cosine) * axis + sine * cross
    luma = torch.tensor(GREY, dtype=hue.dtype)
    return turn + (luma - luma @ turn)[:, None]  # each row gets the brightness it lost
