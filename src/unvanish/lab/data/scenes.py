"""Augmentation of scenes, images with boxes: mirroring and shifts of colour.

Notable: boxes and masks are mirrored with their image. A batch is x, uint8 (B, 3, H, W), and y, rows (M, 6):
image, class, x, y, w, h in shares, or the pair of these and of their masks (M, S, S).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unvanish.lab.data.boxes import shares
from unvanish.lab.data.part import Batch

GREY = (0.299, 0.587, 0.114)  # of red, green, blue in brightness


@dataclass(frozen=True)
class Scenes:
    """From uint8 scenes to floats from 0 to 1, half of them mirrored, with hue, saturation and value shifted.

    `hue`, `saturation`, `value`: the largest shifts, of the hue in turns, of the others as a share.
    """

    flip: float = 0.5
    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        x, y = batch
        mirrored = torch.rand(len(x), generator=generator) < self.flip
        x, y = mirrored_scenes(x, y, mirrored)
        x, y = shares((x, y), generator)
        draws = 2 * torch.rand(3, len(x), generator=generator) - 1
        return shift_colours(
            x, draws[0] * self.hue, 1 + draws[1] * self.saturation, 1 + draws[2] * self.value
        ), y


def mirrored_scenes(x: Tensor, y: Any, which: Tensor) -> Batch:
    """Mirror the scenes selected by `which` (B,) left to right, with their rows and, if given, masks."""
    x = torch.where(which.view(-1, 1, 1, 1), x.flip(-1), x)
    rows = y[0] if isinstance(y, tuple) else y
    turned, moved = which[rows[:, 0].long()], rows.clone()
    moved[:, 2] = torch.where(turned, 1 - rows[:, 2], rows[:, 2])
    if not isinstance(y, tuple):
        return x, moved
    return x, (moved, torch.where(turned.view(-1, 1, 1), y[1].flip(-1), y[1]))


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
