"""The raw maps of a head, read as bins, logits and boxes of every cell of every level.

Notable: lengths are in cells of the finest level, so neither strides nor pixels are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unvanish.lab.detection.boxes import centre_size
from unvanish.lab.models.blocks.detect import BINS, SIDES, anchors


@dataclass(frozen=True)
class CellPredictions:
    """Predictions: bins (B, A, 4, 16), logits (B, A, C), corners (B, A, 4) in the finest level's cells.

    `centres` (A, 2) and `sizes` (A,) of the cells in the same unit; `extra` (B, A, E): the channels after the
    classes.
    """

    bins: Tensor
    logits: Tensor
    boxes: Tensor
    centres: Tensor
    sizes: Tensor
    extra: Tensor


def read_maps(maps: Sequence[Tensor], extra: int = 0) -> CellPredictions:
    """Read raw maps (B, 64 + C + extra, H, W), the finest first; in single precision."""
    strides = [maps[0].shape[-1] / m.shape[-1] for m in maps]
    centres, sizes = anchors([m.float() for m in maps], strides)
    flat = torch.cat([m.flatten(2) for m in maps], 2).transpose(1, 2).float()  # (B, A, channels)
    end = flat.shape[2] - extra
    bins, logits, rest = flat[..., : SIDES * BINS], flat[..., SIDES * BINS : end], flat[..., end:]
    bins = bins.reshape(*bins.shape[:2], SIDES, BINS)
    sides = bins.softmax(-1) @ torch.arange(BINS, device=flat.device, dtype=flat.dtype)
    boxes = torch.cat((centres.T - sides[..., :2], centres.T + sides[..., 2:]), -1) * sizes[:, None]
    return CellPredictions(bins, logits, boxes, centres.T * sizes[:, None], sizes, rest)


def raw_maps(output: Any) -> list[Tensor]:
    """The maps in an output; TypeError if it was decoded."""
    if isinstance(output, Tensor) or not all(isinstance(m, Tensor) and m.ndim == 4 for m in output):
        raise TypeError(
            "the loss of a detector reads its raw maps, but this output is decoded; put the network into"
            " training mode (net.train()), or set net.final.decodes = False"
        )
    return list(output)


def decode_maps(maps: Sequence[Tensor], size: float, extra: int = 0) -> Tensor:
    """Decode raw maps of images `size` pixels wide as the head does, (B, 4 + C + extra, A)."""
    found = read_maps(maps, extra)
    boxes = centre_size(found.boxes) * (size / maps[0].shape[-1])
    return torch.cat((boxes, found.logits.sigmoid(), found.extra), -1).transpose(1, 2)
